//go:build !linux

package cli

import "runtime"

func roomLeft() *room { return nil }

func (a *app) supervise() (code int, done bool) { return 0, false }

func addressRoom() int64 { return unlimited }

func coresOnline() int { return runtime.NumCPU() }
