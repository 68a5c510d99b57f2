//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package model

import (
	"os"
	"syscall"
)

// lock admits one process at a time, until it unlocks or ends: the system
// releases the lock of a process that was killed. The error is ErrSaving while
// another process holds it. On file systems without locks, such as some network
// ones, it does nothing; the protocol of Save still keeps the model readable.
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
		// The previous owner may have removed the file after it was opened
		// here.
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
