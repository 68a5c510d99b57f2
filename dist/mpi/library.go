//go:build dl && linux

package mpi

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/dl"
)

// An abi is how an MPI library passes its handles and which numbers it gave to
// the constants used here. Handles are integers of 32 bits or pointers; both fit
// a uintptr.
type abi struct {
	world, bytes, errorsReturn uintptr // MPI_COMM_WORLD, MPI_BYTE, MPI_ERRORS_RETURN
	anySource                  int
	funneled                   uintptr // MPI_THREAD_FUNNELED
	handle                     uintptr // size of an MPI_Request, in bytes
	status, statusError        uintptr // size of an MPI_Status, and where its MPI_ERROR lies
}

const pointer = unsafe.Sizeof(uintptr(0))

// mpichABI is that of MPICH and of those who keep its initiative of one ABI:
// Intel MPI, MVAPICH, Cray MPICH (mpi.h of MPICH 5.0.2).
var mpichABI = abi{world: 0x44000000, bytes: 0x4c00010d, errorsReturn: 0x54000001, anySource: -2, funneled: 1, handle: 4, status: 20, statusError: 16}

// standardABI is that of the MPI 5.0 standard, chapter 20 (mpi_abi.h).
var standardABI = abi{world: 0x101, bytes: 0x247, errorsReturn: 0x143, anySource: -1, funneled: 1024, handle: pointer, status: 32, statusError: 8}

// openABI is Open MPI's, whose handles are the addresses of its variables.
func openABI(l *dl.Library) (abi, error) {
	a := abi{anySource: -1, funneled: 1, handle: pointer, status: 16 + pointer, statusError: 8}
	return a, l.Bind(map[string]*uintptr{"ompi_mpi_comm_world": &a.world, "ompi_mpi_byte": &a.bytes, "ompi_mpi_errors_return": &a.errorsReturn})
}

// A family is the MPIs whose launcher and library may be mixed.
type family string

const (
	anyMPI  family = "MPI"
	openMPI family = "Open MPI"
	mpich   family = "MPICH"
)

// launcher tells the family of the launcher from the variables that it sets.
// What Slurm's PMI sets fits every MPI.
func launcher(getenv func(string) string) family {
	switch {
	case getenv("OMPI_COMM_WORLD_SIZE") != "":
		return openMPI
	case getenv("MPI_LOCALNRANKS") != "", getenv("PMI_SIZE") != "" && getenv("SLURM_PROCID") == "":
		return mpich
	}
	return anyMPI
}

// names lists the sonames of a family's libraries, the best first.
func (f family) names() []string {
	standard := []string{"libmpi_abi.so.1"}
	open := []string{"libmpi.so.40"}
	other := []string{"libmpi.so.12", "libmpich.so.12"} // the latter is Debian's
	switch f {
	case openMPI:
		return slices.Concat(standard, open)
	case mpich:
		return slices.Concat(standard, other)
	}
	return slices.Concat(standard, open, other)
}

// A library is a loaded MPI library.
type library struct {
	abi
	loaded  *dl.Library
	family  family
	version string // its first line, such as "Open MPI v5.0.11, ..."

	initThread, setErrhandler, commRank, commSize, typeSize uintptr
	irecv, isend, testsome                                  uintptr
	cancel, wait, finalize, abort, errorString              uintptr
}

// open loads the MPI library that belongs to the launcher: CAROUSEL_MPI's if it
// is set, otherwise the one that lies beside the launcher, otherwise the first
// that the dynamic linker finds.
func open(getenv func(string) string, beside []string) (*library, error) {
	f := launcher(getenv)
	if path := getenv("CAROUSEL_MPI"); path != "" {
		l, err := load(path, f)
		if err != nil {
			return nil, fmt.Errorf("CAROUSEL_MPI: %w", err)
		}
		return l, nil
	}
	var paths []string
	for _, dir := range beside {
		for _, name := range f.names() {
			if path := filepath.Join(dir, name); exists(path) {
				paths = append(paths, path)
			}
		}
	}
	var failed []string
	for _, path := range append(paths, f.names()...) {
		l, err := load(path, f)
		if err == nil {
			return l, nil
		}
		failed = append(failed, err.Error())
	}
	return nil, fmt.Errorf("the library of the %s that started this process was not found: set CAROUSEL_MPI to its path (tried: %s)", f, strings.Join(failed, "; "))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// load loads the library at path and refuses one that does not belong to a
// launcher of family f: each of its ranks would believe itself alone.
func load(path string, f family) (*library, error) {
	loaded, err := dl.Open(path, true) // plugins of older Open MPIs look for its symbols
	if err != nil {
		return nil, err
	}
	l := &library{loaded: loaded}
	if err := l.bind(path, f); err != nil {
		return nil, errors.Join(err, loaded.Close())
	}
	return l, nil
}

func (l *library) bind(path string, f family) error {
	var getVersion uintptr
	if err := l.loaded.Bind(map[string]*uintptr{
		"MPI_Get_library_version": &getVersion,
		"MPI_Init_thread":         &l.initThread,
		"MPI_Comm_set_errhandler": &l.setErrhandler,
		"MPI_Comm_rank":           &l.commRank,
		"MPI_Comm_size":           &l.commSize,
		"MPI_Type_size":           &l.typeSize,
		"MPI_Irecv":               &l.irecv,
		"MPI_Isend":               &l.isend,
		"MPI_Testsome":            &l.testsome,
		"MPI_Cancel":              &l.cancel,
		"MPI_Wait":                &l.wait,
		"MPI_Finalize":            &l.finalize,
		"MPI_Abort":               &l.abort,
		"MPI_Error_string":        &l.errorString,
	}); err != nil {
		return fmt.Errorf("not an MPI library: %w", err)
	}
	text := make([]byte, 8192) // MPI_MAX_LIBRARY_VERSION_STRING of the standard ABI, the largest
	var n int32
	if code := dl.Call(getVersion, uintptr(unsafe.Pointer(&text[0])), uintptr(unsafe.Pointer(&n))); code != 0 {
		return fmt.Errorf("%s: MPI_Get_library_version failed with code %d", path, code)
	}
	l.version, _, _ = strings.Cut(string(text[:min(max(int(n), 0), len(text))]), "\n")
	l.version = strings.TrimRight(l.version, "\x00 \r")
	l.family = mpich
	if strings.Contains(l.version, "Open MPI") {
		l.family = openMPI
	}
	if f != anyMPI && f != l.family {
		return fmt.Errorf("%s is %q, but %s's launcher started this process: start it with the launcher of that library, or set CAROUSEL_MPI to the path of %s's", path, l.version, f, f)
	}
	// MPI_Abi_get_version gives -1 in a library of another ABI, and is absent in older ones.
	if get := l.loaded.Symbol("MPI_Abi_get_version"); get != 0 {
		var major, minor int32
		if dl.Call(get, uintptr(unsafe.Pointer(&major)), uintptr(unsafe.Pointer(&minor))) == 0 && major >= 1 {
			l.abi = standardABI
			return nil
		}
	}
	if l.family == mpich {
		l.abi = mpichABI
		return nil
	}
	var err error
	l.abi, err = openABI(l.loaded)
	return err
}

// check makes an error of a code that an MPI function returned.
func (l *library) check(name string, code int32) error {
	if code == 0 {
		return nil
	}
	text := make([]byte, 8192)
	var n int32
	if dl.Call(l.errorString, uintptr(code), uintptr(unsafe.Pointer(&text[0])), uintptr(unsafe.Pointer(&n))) != 0 {
		return fmt.Errorf("mpi: %s failed with code %d", name, code)
	}
	return fmt.Errorf("mpi: %s: %s", name, dl.OneLine(string(text[:min(max(int(n), 0), len(text))])))
}

// leave ends MPI in this process.
func (l *library) leave() (err error) {
	keepHandlers(func() {
		err = l.check("MPI_Finalize", dl.Call(l.finalize))
		if l.family == mpich {
			// MPICH 5 takes leave of its launcher when the C library's exit runs, which a Go
			// program never calls, or when it is unloaded. A rank that ended without it would
			// have all others killed that are still at work.
			err = errors.Join(err, l.loaded.Close())
		}
	})
	return err
}

// besideLauncher returns the directories of libraries beside the programs of an
// MPI that this process descends from. Wheels and builds in a home directory
// keep their libraries there, where the dynamic linker does not look.
func besideLauncher() (dirs []string) {
	for pid := os.Getppid(); pid > 1; pid = parent(pid) {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && isLauncher(filepath.Base(exe)) {
			for _, lib := range []string{"lib", "lib64", "lib/release"} { // the last is Intel's
				dirs = append(dirs, filepath.Join(filepath.Dir(filepath.Dir(exe)), lib))
			}
		}
	}
	return dirs
}

// parent returns the parent of a process, or 0.
func parent(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), "\nPPid:")
	line, _, _ := strings.Cut(after, "\n")
	p, _ := strconv.Atoi(strings.TrimSpace(line)) // 0 of what is no number
	return p
}

// isLauncher reports whether a program's name is that of an MPI's launcher or of
// its helper on each machine.
func isLauncher(name string) bool {
	return slices.ContainsFunc([]string{"mpirun", "mpiexec", "orte", "prte", "hydra", "pmi_proxy"}, func(part string) bool {
		return strings.Contains(name, part)
	})
}
