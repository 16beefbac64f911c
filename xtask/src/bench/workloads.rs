//! The programs that are run whole: each is one shell script inside one start of the runtime.

/// A script for /bin/sh. It gets `$INPUTS` (prepared files, read only by custom), `$SIZE`, and `$SCRATCH` when it asks
/// for one: a fresh directory in memory. Whatever it prints must not depend on where it runs.
pub struct Workload {
    pub name: &'static str,
    /// Programs without which it is skipped.
    pub needs: &'static [&'static str],
    /// `$SIZE` of a whole and of a quick run.
    pub size: &'static str,
    pub quick_size: &'static str,
    pub scratch: Scratch,
    pub script: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scratch {
    None,
    Fresh,
}

/// The row that says what a start alone costs, which all others include.
pub const START_UP: &str = "start_up";

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: START_UP,
        needs: &[],
        size: "1",
        quick_size: "1",
        scratch: Scratch::None,
        script: ":",
    },
    Workload {
        name: "shell_storm",
        needs: &[],
        size: "300",
        quick_size: "60",
        scratch: Scratch::None,
        script: "i=0; while [ $i -lt $SIZE ]; do /bin/true; i=$((i+1)); done; echo $i",
    },
    Workload {
        name: "python_start",
        needs: &["/usr/bin/python3"],
        size: "1",
        quick_size: "1",
        scratch: Scratch::None,
        script: "/usr/bin/python3 -c 'print(6*7)'",
    },
    Workload {
        name: "find",
        needs: &["find"],
        size: "/usr/share",
        quick_size: "/usr/share/doc",
        scratch: Scratch::None,
        script: "find $SIZE | wc -l",
    },
    Workload {
        name: "tar",
        needs: &["tar"],
        size: "/usr/include",
        quick_size: "/usr/include/linux",
        scratch: Scratch::None,
        // Through a pipe: tar does not even read the files when it sees /dev/null.
        script: "tar cf - -C $SIZE . | wc -c",
    },
    Workload {
        name: "grep",
        needs: &["grep"],
        size: "/usr/include",
        quick_size: "/usr/include/linux",
        scratch: Scratch::None,
        script: "grep -r include $SIZE | wc -l",
    },
    Workload {
        name: "gcc",
        needs: &["gcc"],
        size: "1",
        quick_size: "1",
        scratch: Scratch::Fresh,
        script: "gcc -O2 -c $INPUTS/middle.c -o $SCRATCH/middle.o; cksum <$SCRATCH/middle.o",
    },
    Workload {
        name: "make",
        needs: &["make", "gcc"],
        size: "1",
        quick_size: "1",
        scratch: Scratch::Fresh,
        script: "cp -r $INPUTS/make $SCRATCH; make -s -j2 -C $SCRATCH/make; $SCRATCH/make/program",
    },
    Workload {
        name: "git",
        needs: &["git"],
        size: "500",
        quick_size: "100",
        scratch: Scratch::Fresh,
        script: "
            cd $SCRATCH
            i=0; while [ $i -lt $SIZE ]; do echo \"text of file $i\" >file-$i; i=$((i+1)); done
            export HOME=$SCRATCH GIT_CONFIG_NOSYSTEM=1
            git init -q -b main .
            git add .
            git -c user.name=bench -c user.email=bench@localhost commit -q -m 'All files'
            git status --porcelain | wc -l
            git rev-parse 'HEAD^{tree}'",
    },
    Workload {
        name: "sqlite",
        needs: &["sqlite3"],
        size: "1",
        quick_size: "1",
        scratch: Scratch::Fresh,
        script: "sqlite3 $SCRATCH/database <$INPUTS/transactions.sql",
    },
    Workload {
        name: "compileall",
        needs: &["/usr/bin/python3"],
        size: "1",
        quick_size: "1",
        scratch: Scratch::Fresh,
        script: "
            cp -r $INPUTS/library $SCRATCH
            /usr/bin/python3 -m compileall -q $SCRATCH/library
            find $SCRATCH/library -name '*.pyc' | wc -l",
    },
    Workload {
        name: "node_start",
        needs: &["node"],
        size: "1",
        quick_size: "1",
        scratch: Scratch::None,
        script: "node -e 'console.log(6*7)'",
    },
    Workload {
        name: "java_start",
        needs: &["java"],
        size: "1",
        quick_size: "1",
        scratch: Scratch::None,
        script: "java -version 2>&1",
    },
    Workload {
        name: "redis",
        needs: &["redis-server", "redis-benchmark", "redis-cli"],
        // Requests of each of the two kinds; the time holds the server's start and end, too.
        size: "20000",
        quick_size: "2000",
        scratch: Scratch::Fresh,
        script: "
            cd $SCRATCH
            redis-server --port 0 --unixsocket socket --save '' --daemonize no >log &
            i=0; until redis-cli -s socket ping >pong 2>&1 && grep -q PONG pong; do
                i=$((i+1)); if [ $i -gt 200 ]; then echo 'the server never answered' >&2; exit 1; fi
                sleep 0.02
            done
            redis-benchmark -s socket -q -c 20 -n $SIZE -t set,get >result
            redis-cli -s socket dbsize
            redis-cli -s socket shutdown nosave
            wait",
    },
];

impl Workload {
    pub fn size(&self, is_quick: bool) -> &'static str {
        if is_quick { self.quick_size } else { self.size }
    }

    /// The first program it lacks on this host.
    pub fn missing(&self) -> Option<&'static str> {
        self.needs.iter().copied().find(|program| !is_installed(program))
    }

    /// The script with its variables: `sh -c SCRIPT sh INPUTS SIZE SCRATCH-PARENT`.
    pub fn shell_text(&self) -> String {
        let scratch = match self.scratch {
            Scratch::None => "",
            Scratch::Fresh => "SCRATCH=$(mktemp -d $3/bench.XXXXXX); export TMPDIR=$SCRATCH\n",
        };
        format!("set -eu; INPUTS=$1 SIZE=$2\n{scratch}{}", self.script)
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Joining with an absolute path gives that path.
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_start_comes_first() {
        assert_eq!(WORKLOADS[0].name, START_UP);
        for (index, workload) in WORKLOADS.iter().enumerate() {
            assert!(WORKLOADS[..index].iter().all(|other| other.name != workload.name));
        }
    }
}
