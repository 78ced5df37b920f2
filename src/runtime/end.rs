//! The end of a process in the middle of a run.

/// Ends the process at once: nothing is waited for, and no destructor of ONNX Runtime runs while other threads are still inside it, which would
/// crash.
pub fn end_process(code: i32) -> ! {
    #[cfg(unix)]
    #[expect(unsafe_code, reason = "the standard library has no safe form of this")]
    // SAFETY: it ends the process; there is nothing left that could be in a wrong state.
    unsafe {
        libc::_exit(code)
    }
    #[cfg(not(unix))]
    #[expect(clippy::exit, reason = "the caller has decided to end")]
    std::process::exit(code)
}
