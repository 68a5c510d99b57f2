//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package model

import (
	"os"
	"syscall"
)

// lock makes sure that one process at a time gets past it, until it unlocks or
// ends: the system lets go of the lock of a process that was killed. The error is
// ErrSaving while another holds it. Where a file system cannot lock, as some
// network ones cannot, nothing guards; a model is not lost for that.
func lock(path string) (unlock func(), err error) {
	for {
		step()
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == syscall.EWOULDBLOCK {
			f.Close()
			return nil, ErrSaving
		}
		// The one before may have removed the file after it was opened here.
		mine, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return func() {
				_ = remove(path)
				f.Close()
			}, nil
		}
		f.Close()
	}
}
