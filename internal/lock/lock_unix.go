//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package lock

import (
	"os"
	"syscall"
)

// Acquire takes the lock of the file at path, which it creates, until release
// is called or the process ends, also if it is killed; release removes the file.
// The error is ErrHeld while the lock is held, or that of creating the file. On
// file systems without locks, such as some network ones, it always succeeds.
func Acquire(path string) (release func(), err error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == syscall.EWOULDBLOCK {
			f.Close()
			return nil, ErrHeld
		}
		// The previous owner may have removed the file after it was opened
		// here.
		mine, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return func() {
				_ = os.Remove(path)
				f.Close()
			}, nil
		}
		f.Close()
	}
}
