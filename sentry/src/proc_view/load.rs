//! Load averages. Linux samples every five seconds; here the averages are brought up to date when somebody looks,
//! with the number of runnable threads of that moment for the whole time since: idle sandboxes have no ticks.

use base::clock::Nanos;

/// Of one, five and fifteen minutes.
const WINDOWS_S: [f64; 3] = [60.0, 300.0, 900.0];

#[derive(Debug, Default)]
pub struct LoadAverage {
    last_ns: Nanos,
    averages: [f64; 3],
}

impl LoadAverage {
    /// In hundredths.
    pub fn update(&mut self, now_ns: Nanos, runnable: u64) -> [u64; 3] {
        let elapsed_s = now_ns.saturating_sub(self.last_ns) as f64 / 1e9;
        self.last_ns = now_ns;
        for (average, window) in self.averages.iter_mut().zip(WINDOWS_S) {
            let kept = (-elapsed_s / window).exp();
            *average = *average * kept + runnable as f64 * (1.0 - kept);
        }
        self.averages.map(|average| (average * 100.0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_approach_the_number_of_runnable_threads() {
        let mut load = LoadAverage::default();
        assert_eq!(load.update(0, 2), [0, 0, 0]);
        let [one, five, fifteen] = load.update(60_000_000_000, 2);
        assert!(one > five && five > fifteen && one > 100 && one < 200);
    }
}
