package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/carousel-ml/carousel/model"
)

// roomLeft is the smallest of the machine's memory and that of the control groups that
// the process is in; nil if they cannot be read. Pages of files that the system can drop
// count as free.
func roomLeft() *room {
	var r *room
	if m := fieldsOf("/proc/meminfo"); m["MemTotal"] > 0 {
		const kibi = 1 << 10
		r = &room{free: kibi * (m["MemAvailable"] + m["SwapFree"]), all: kibi * (m["MemTotal"] + m["SwapTotal"]), of: "this machine"}
	}
	for _, g := range controlGroups {
		limit := numberIn(g.dir + g.limit)
		if limit <= 0 || limit >= unlimited {
			continue
		}
		stat := fieldsOf(g.dir + "/memory.stat")
		files := stat[g.files+"active_file"] + stat[g.files+"inactive_file"]
		r = smaller(r, &room{free: limit - numberIn(g.dir+g.usage) + files, all: limit, of: "the control group of this process"})
	}
	return r
}

// smaller returns the room with less memory; nil is one without an end.
func smaller(a, b *room) *room {
	if a == nil || b != nil && b.free < a.free {
		return b
	}
	return a
}

// controlGroup is a group with a controller of memory, in version 1 or 2.
type controlGroup struct{ dir, limit, usage, files string }

// controlGroups are the groups that the process is in, up to the root. A container may
// see its own group as the root.
var controlGroups = findControlGroups()

func findControlGroups() (list []controlGroup) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // number:controllers:path
		if len(parts) != 3 {
			continue
		}
		g, root := controlGroup{limit: "/memory.max", usage: "/memory.current"}, "/sys/fs/cgroup"
		if parts[1] == "memory" {
			g, root = controlGroup{limit: "/memory.limit_in_bytes", usage: "/memory.usage_in_bytes", files: "total_"}, "/sys/fs/cgroup/memory"
		} else if parts[1] != "" {
			continue
		}
		for at := path.Clean("/" + parts[2]); ; at = path.Dir(at) {
			g.dir = path.Join(root, at)
			if _, err := os.Stat(g.dir + g.limit); err == nil {
				list = append(list, g)
			}
			if at == "/" {
				break
			}
		}
	}
	return list
}

// fieldsOf reads a file of lines such as "MemTotal: 123 kB".
func fieldsOf(name string) map[string]int64 {
	text, _ := os.ReadFile(name)
	values := map[string]int64{}
	for line := range bytes.Lines(text) {
		if f := bytes.Fields(line); len(f) > 1 {
			values[strings.TrimSuffix(string(f[0]), ":")], _ = strconv.ParseInt(string(f[1]), 10, 64)
		}
	}
	return values
}

// numberIn reads the number with which a file begins; 0 if there is none, such as in "max".
func numberIn(name string) int64 {
	text, _ := os.ReadFile(name)
	first, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte(" "))
	n, _ := strconv.ParseInt(string(first), 10, 64)
	return n
}

// supervisedBy is the variable by which a process finds that it is supervised: its
// standard error is file descriptor 3, and what the runtime prints goes to 2.
const supervisedBy = "CAROUSEL_SUPERVISED"

// supervise runs the command in a child process if the address space is limited
// (ulimit -v, ulimit -d), and reports whether it did, with the exit code. Where the
// runtime ended the child because the system refused memory, it says so in a sentence
// instead, and removes the temporary file of --out.
func (a *app) supervise() (code int, done bool) {
	if os.Getenv(supervisedBy) != "" {
		os.Unsetenv(supervisedBy)
		unix.CloseOnExec(3)
		a.stderr = os.NewFile(3, "stderr")
		return 0, false
	}
	limit := addressLimit()
	out, isFile := a.stderr.(*os.File)
	if limit == 0 || !isFile {
		return 0, false
	}
	var said head
	c := exec.Command("/proc/self/exe")
	c.Args = os.Args
	c.Stdin, c.Stdout, c.Stderr, c.ExtraFiles = os.Stdin, os.Stdout, &said, []*os.File{out}
	c.Env = append(os.Environ(), supervisedBy+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, endings()...)
	if c.Start() != nil {
		return 0, false
	}
	go func() {
		for s := range signals {
			if s != os.Interrupt || !inForeground() { // the terminal's Ctrl-C reaches the child too
				_ = c.Process.Signal(s)
			}
		}
	}()
	_ = c.Wait()
	code = c.ProcessState.ExitCode()
	text := string(said.kept)
	switch status := c.ProcessState.Sys().(syscall.WaitStatus); {
	case strings.Contains(text, "out of memory") || strings.Contains(text, "cannot allocate memory") || strings.Contains(text, "failed to reserve") || strings.Contains(text, "resource temporarily unavailable"):
		a.complain(a.lacking("", fmt.Sprintf("the address space of the process is limited to %d MiB (ulimit)", limit/mebibyte)))
		for i, arg := range os.Args[:len(os.Args)-1] {
			if arg == "--out" {
				model.SweepTemporaries(os.Args[i+1])
			}
		}
		return exitFailure, true
	case status.Signaled():
		code = 128 + int(status.Signal())
	}
	_, _ = out.Write(said.kept)
	return code, true
}

// addressLimit is the limit of the address space or of data, in bytes; 0 if there is none.
func addressLimit() (least int64) {
	for _, which := range []int{unix.RLIMIT_AS, unix.RLIMIT_DATA} {
		var limit unix.Rlimit
		if unix.Getrlimit(which, &limit) == nil && limit.Cur < unlimited && (least == 0 || int64(limit.Cur) < least) {
			least = int64(limit.Cur)
		}
	}
	return least
}

// coresOnline is the number of the machine's cores, those included that this process is not
// bound to.
func coresOnline() int {
	text, _ := os.ReadFile("/sys/devices/system/cpu/online") // such as 0-3,8
	n := 0
	for span := range strings.SplitSeq(strings.TrimSpace(string(text)), ",") {
		low, high, more := strings.Cut(span, "-")
		if !more {
			high = low
		}
		first, err1 := strconv.Atoi(low)
		last, err2 := strconv.Atoi(high)
		if err1 == nil && err2 == nil {
			n += last - first + 1
		}
	}
	return max(n, runtime.NumCPU())
}

// addressRoom is how much of the address space is free, in bytes.
func addressRoom() int64 {
	limit := addressLimit()
	if limit == 0 {
		return unlimited
	}
	return limit - int64(os.Getpagesize())*numberIn("/proc/self/statm")
}

// inForeground reports whether the terminal, if there is one, sends Ctrl-C to this
// process and its child.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// head keeps the beginning of what is written.
type head struct{ kept []byte }

func (h *head) Write(p []byte) (int, error) {
	const most = 1 << 20
	h.kept = append(h.kept, p[:min(len(p), most-len(h.kept))]...)
	return len(p), nil
}
