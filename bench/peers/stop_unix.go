//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// ownGroup gives the command a process group, so that its children stop with it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// stop stops a peer until it is resumed: the threads of some libraries spin after
// a call and would use a core of the next competitor. An error, because the
// process has ended, is ignored.
func stop(cmd *exec.Cmd)   { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGSTOP) }
func resume(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGCONT) }
