//go:build unix

package trials

import (
	"os/exec"
	"syscall"
)

// inOwnGroup starts a program in a process group of its own, which Ctrl-C in the terminal does not reach, and ends
// all of the group with SIGTERM.
func inOwnGroup(p *exec.Cmd) {
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.Cancel = func() error { return syscall.Kill(-p.Process.Pid, syscall.SIGTERM) }
}

// killGroup kills what is left of the group of a program that has ended.
func killGroup(p *exec.Cmd) {
	_ = syscall.Kill(-p.Process.Pid, syscall.SIGKILL) // there may be nothing left
}
