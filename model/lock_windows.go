package model

import "syscall"

// lock makes sure that one process at a time gets past it, until it unlocks or
// ends: the file is open to no one else, and the system closes and removes it. The
// error is ErrSaving while another has it.
func lock(path string) (unlock func(), err error) {
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
		return nil, ErrSaving
	}
	if err != nil {
		return nil, err
	}
	return func() { syscall.CloseHandle(h) }, nil
}
