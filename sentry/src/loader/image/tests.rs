use super::*;

/// Plans the segments of `elf` as if each were anonymous memory.
pub fn plan(elf: &Elf) -> Result<()> {
    let bounds = Bounds { min_addr: 0x1_0000, task_size: 0x7e00_0000_0000, mmap_base: 1 << 46 };
    let mut image = Image {
        state: MmState::new(bounds),
        ops: Vec::new(),
        zeroes: Vec::new(),
        stack_top: 0,
        program_entry: 0,
        entry: 0,
        phdr: 0,
        interpreter_base: 0,
    };
    let bias = image.place_program(elf, 0x1234_5678_9abc)?;
    image.map_segments(elf, None, bias, &Limits::NONE)?;
    image.note_program(elf, bias, 77)?;
    let bias = image.place_interpreter(elf)?;
    image.map_segments(elf, None, bias, &Limits::NONE)?;
    for brk in [0, image.state.brk + 0x5000, u64::MAX] {
        let _ = image.state.plan_brk(brk, &Limits::NONE);
    }
    Ok(())
}
