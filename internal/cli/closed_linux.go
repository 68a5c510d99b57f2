package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// shells are programs in which a user closes standard output, with >&-.
var shells = []string{"sh", "ash", "bash", "busybox", "dash", "fish", "ksh", "mksh", "zsh"}

// isClosed reports whether a standard output was closed when the process began. The
// runtime then opens the null device in its place, for reading and writing, so that no
// other file gets its number; writes succeed and are lost. A shell's >/dev/null opens it
// for writing only. Other programs also open it for both where they discard an output
// (Python's subprocess.DEVNULL), so the parent must be a shell, whose own output is
// not the null device, which the process would have from it.
func isClosed(f *os.File) bool {
	null, err := os.Stat(os.DevNull)
	if err != nil {
		return false
	}
	isNull := func(info os.FileInfo, err error) bool { return err == nil && os.SameFile(info, null) }
	mode, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || mode&unix.O_ACCMODE != unix.O_RDWR || !isNull(f.Stat()) {
		return false
	}
	parent := fmt.Sprintf("/proc/%d/", os.Getppid())
	program, err := os.Readlink(parent + "exe")
	return err == nil && slices.Contains(shells, strings.TrimPrefix(filepath.Base(program), "-")) && !isNull(os.Stat(parent+"fd/1"))
}
