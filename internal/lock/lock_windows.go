package lock

import "syscall"

// Acquire takes the lock of the file at path, which it creates, until release
// is called or the process ends: the file can be opened once, and the system
// closes and removes it. The error is ErrHeld while the lock is held, or that of
// creating the file.
func Acquire(path string) (release func(), err error) {
	const (
		deleteAccess  = 0x00010000
		deleteOnClose = 0x04000000
		sharing       = syscall.Errno(32)
	)
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(name, syscall.GENERIC_WRITE|deleteAccess, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL|deleteOnClose, 0)
	if err == sharing {
		return nil, ErrHeld
	}
	if err != nil {
		return nil, err
	}
	return func() { syscall.CloseHandle(h) }, nil
}
