//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// ownGroup gives the command a process group, so that what it starts stops with it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// stop keeps a peer from running until it is resumed: the threads of some
// libraries go on spinning after a call and would take a core from whoever is
// next. That the process may have ended changes nothing.
func stop(cmd *exec.Cmd)   { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGSTOP) }
func resume(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGCONT) }
