package cli

import (
	"os/exec"
	"syscall"
)

// ownGroup starts a rank in a process group of its own, so that a terminal's Ctrl-C reaches it
// through the launcher alone, once. The system ends it when its launcher is gone.
func ownGroup(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// killGroup ends a rank and what it has started.
func killGroup(c *exec.Cmd) {
	_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // it may have ended
}
