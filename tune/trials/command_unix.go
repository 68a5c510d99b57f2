//go:build unix

package trials

import (
	"fmt"
	"os/exec"
	"syscall"
)

// inOwnGroup lets a program start in a process group of its own, which Ctrl-C in the terminal does not reach, and be ended by SIGTERM
// to all of the group. ended is called when the program has ended, or was not started, and kills what is left of the group if kill is set.
//
// The group's first process is a guard, which ends the others when this process is gone, also by SIGKILL: a shell that waits for the end
// of a pipe whose other side is this process's alone. (The signal that Linux has for this, PR_SET_PDEATHSIG, reaches the program
// and not what it has started.) Without a shell there is no guard.
func inOwnGroup(p *exec.Cmd) (ended func(kill bool)) {
	guard := exec.Command("/bin/sh", "-c", `trap '' TERM; read -r end; kill -TERM 0; sleep "$0"; kill -KILL 0`, fmt.Sprint(grace.Seconds()))
	guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if _, err := guard.StdinPipe(); err == nil && guard.Start() == nil {
		p.SysProcAttr.Pgid = guard.Process.Pid
	}
	signal := func(s syscall.Signal) error {
		group := p.SysProcAttr.Pgid
		if group == 0 {
			group = p.Process.Pid
		}
		return syscall.Kill(-group, s)
	}
	p.Cancel = func() error { return signal(syscall.SIGTERM) }
	return func(kill bool) {
		if kill {
			_ = signal(syscall.SIGKILL) // there may be nothing left
		}
		if guard.Process != nil {
			_ = guard.Process.Kill()
			_ = guard.Wait()
		}
	}
}
