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
