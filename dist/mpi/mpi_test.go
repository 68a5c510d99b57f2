//go:build dl && linux

package mpi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/dist"
	"github.com/carousel-ml/carousel/dist/disttest"
	"github.com/carousel-ml/carousel/internal/dl"
)

// The tests start this program again under the launchers of MPIs; sceneOf tells
// it which part it plays there.
const sceneOf = "CAROUSEL_TEST_SCENE"

func TestMain(m *testing.M) {
	if name := os.Getenv(sceneOf); name != "" {
		if err := scenes[name](); err != nil {
			fmt.Fprintf(os.Stderr, "failed: %v\n", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// An installed is an MPI that is here: its launcher, and one of its libraries if
// it has several.
type installed struct {
	name, mpirun, library string
}

// mpis finds the launchers of CAROUSEL_MPIRUN, a list as that of PATH, or those
// that make mpi has installed.
func mpis(t *testing.T) []installed {
	t.Helper()
	list := filepath.SplitList(os.Getenv("CAROUSEL_MPIRUN"))
	if len(list) == 0 {
		list, _ = filepath.Glob("../../.peers/venv-*/bin/mpirun")
	}
	var found []installed
	for _, path := range list {
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := exec.Command(path, "--version").Output()
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if regexp.MustCompile("Open MPI|OpenRTE").Match(text) {
			found = append(found, installed{"openmpi", path, ""})
			continue
		}
		found = append(found, installed{"mpich", path, ""})
		// Of the two that newer releases have, the classic library is not the default.
		lib := filepath.Join(filepath.Dir(filepath.Dir(path)), "lib")
		if classic := filepath.Join(lib, "libmpi.so.12"); exists(classic) && exists(filepath.Join(lib, "libmpi_abi.so.1")) {
			found = append(found, installed{"mpich-classic", path, classic})
		}
	}
	if len(found) == 0 {
		t.Skip("no MPI is here: make mpi gets two")
	}
	return found
}

// run plays a scene on n ranks and returns what they and the launcher wrote, and
// the launcher's error.
func (m installed) run(t *testing.T, n int, scene string, env ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.mpirun, "-n", strconv.Itoa(n), self)
	cmd.Env = append(os.Environ(), sceneOf+"="+scene, "CAROUSEL_MPI="+m.library,
		"OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", "PRTE_ALLOW_RUN_AS_ROOT=1", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1",
		"PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe", "OMPI_MCA_rmaps_base_oversubscribe=1")
	cmd.Env = append(cmd.Env, env...)
	cmd.WaitDelay = 5 * time.Second // of ranks that outlive their launcher
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%s: %s with %d ranks has not ended:\n%s", m.name, scene, n, out)
	}
	return string(out), err
}

// each runs a test on every MPI that is here.
func each(t *testing.T, test func(t *testing.T, m installed)) {
	t.Helper()
	for _, m := range mpis(t) {
		t.Run(m.name, func(t *testing.T) { test(t, m) })
	}
}

// succeeds wants n ranks to play a scene without an error, each of which prints
// one line "done" at its end.
func succeeds(t *testing.T, m installed, n int, scene string, env ...string) string {
	t.Helper()
	out, err := m.run(t, n, scene, env...)
	if err != nil || strings.Count(out, "done\n") != n {
		t.Errorf("%s of %d ranks: %v:\n%s", scene, n, err, out)
	}
	return out
}

var scenes = map[string]func() error{
	"exchange": exchangeScene,
	"figures":  figuresScene,
	"library": withWorld(func(w dist.Transport) error {
		fmt.Println(w.(*transport).version, w.(*transport).handle)
		return w.Close()
	}),
	"handlers":  withWorld(handlersScene),
	"abort":     withWorld(abortScene),
	"deaf":      withWorld(deafScene),
	"kill":      withWorld(killScene),
	"truncated": withWorld(truncatedScene),
	"binding":   func() error { fmt.Println(Binding(place())); return nil },
	"connect":   withWorld(dist.Transport.Close),
	"alone":     aloneScene,
	"twice":     twiceScene,
}

// place tells where the launcher put this process, which Find does not say of
// one that is alone.
func place() *dist.Place {
	p, err := dist.Find(os.Getenv)
	if err != nil {
		panic(err)
	}
	if p == nil {
		p = &dist.Place{Size: 1, LocalSize: 1, Launcher: "mpirun", MPI: true}
	}
	return p
}

func withWorld(f func(dist.Transport) error) func() error {
	return func() error {
		w, err := Connect(context.Background(), place())
		if err != nil {
			return err
		}
		return f(w)
	}
}

// lengths are those of the messages between each pair of ranks.
var lengths = []int{0, 1, 3, 8, 4095, 70_001, chunk - 1, chunk, chunk + 1, 8<<20 + 5}

var exchangeScene = withWorld(func(w dist.Transport) error {
	if err := disttest.Exchange(w, lengths); err != nil {
		return err
	}
	rank, size := w.Rank(), w.Size()
	// Only rank 0 to the last, from another goroutine.
	send, recv := make([][]byte, size), make([][]byte, size)
	if last := size - 1; rank == 0 {
		send[last] = []byte("to the last")
	} else if rank == last {
		recv[0] = make([]byte, len("to the last"))
	}
	result := make(chan error)
	go func() { result <- w.Exchange(send, recv) }()
	if err := <-result; err != nil {
		return err
	}
	if rank != 0 && rank == size-1 && string(recv[0]) != "to the last" {
		return fmt.Errorf("the last rank got %q", recv[0])
	}
	if err := w.Exchange(send[:1], recv); size > 1 && err == nil {
		return errors.New("Exchange took one buffer for several ranks")
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := w.Exchange(send, recv); err == nil {
		return errors.New("Exchange after Close succeeded")
	}
	fmt.Println("done")
	if err := w.Close(); !errors.Is(err, dl.ErrStopped) {
		return fmt.Errorf("the second Close: %w", err)
	}
	return nil
})

func TestExchange(t *testing.T) {
	each(t, func(t *testing.T, m installed) {
		for _, n := range []int{1, 2, 3} {
			succeeds(t, m, n, "exchange")
		}
	})
}

// The wheels keep their libraries beside the launcher, where the linker does not
// look; of MPICH's two the one with the standard ABI is taken.
func TestLibraryOfTheLauncher(t *testing.T) {
	want := map[string]string{"openmpi": "Open MPI", "mpich": "MPICH", "mpich-classic": "MPICH"}
	size := map[string]string{"openmpi": " 8\n", "mpich": " 8\n", "mpich-classic": " 4\n"}
	each(t, func(t *testing.T, m installed) {
		out, err := m.run(t, 1, "library")
		if err != nil || !strings.Contains(out, want[m.name]) {
			t.Errorf("%v: %s", err, out)
		}
		// Before 5, MPICH had no standard ABI.
		if !regexp.MustCompile(`MPICH Version:\s*[34]`).MatchString(out) && !strings.Contains(out, size[m.name]) {
			t.Errorf("handles of %s, want%s", out, size[m.name])
		}
	})
}

// handlersScene needs Go's own handlers of signals.
func handlersScene(w dist.Transport) error {
	if nilDereference() == nil {
		return errors.New("a nil dereference was no panic")
	}
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1} {
		caught := make(chan os.Signal, 1)
		signal.Notify(caught, s)
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			return err
		}
		if got := <-caught; got != s {
			return fmt.Errorf("caught %v, want %v", got, s)
		}
	}
	fmt.Println("done")
	return w.Close()
}

func nilDereference() (panicked any) {
	defer func() { panicked = recover() }()
	var p *int
	*p = 1
	return nil
}

func TestHandlersOfSignalsAreKept(t *testing.T) {
	each(t, func(t *testing.T, m installed) { succeeds(t, m, 2, "handlers") })
}

// keepHandlers puts back what another has changed, and nothing else.
func TestKeepHandlers(t *testing.T) {
	var before, after sigaction
	handler(int(syscall.SIGSEGV), nil, &before)
	keepHandlers(func() {
		handler(int(syscall.SIGSEGV), &sigaction{}, nil)
		handler(int(syscall.SIGSEGV), nil, &after)
		if after == before {
			t.Error("the handler was not replaced")
		}
	})
	if handler(int(syscall.SIGSEGV), nil, &after); after != before || nilDereference() == nil {
		t.Error("the handler was not put back")
	}
}

// abortScene ends the job on rank 1 while the others wait for it, in a call and
// before one.
func abortScene(w dist.Transport) error {
	size := w.Size()
	wait := func() error {
		send, recv := make([][]byte, size), make([][]byte, size)
		for r := range size {
			recv[r], send[r] = make([]byte, 5<<20), make([]byte, 5<<20)
		}
		return w.Exchange(send, recv)
	}
	switch w.Rank() {
	case 1:
		pending := make(chan error)
		go func() { pending <- wait() }() // rank 0 sends to it, the last rank never does
		time.Sleep(200 * time.Millisecond)
		w.Abort(errors.New("disk full\non rank 1's machine"))
		if err := <-pending; err == nil {
			return errors.New("the pending call has succeeded")
		}
	case 2:
		time.Sleep(500 * time.Millisecond)
	}
	err := wait()
	if err == nil {
		return errors.New("a later call has succeeded")
	}
	if again := wait(); again == nil || again.Error() != err.Error() {
		return fmt.Errorf("first %w, then %w", err, again)
	}
	w.Abort(err)
	if closing := w.Close(); closing == nil || closing.Error() != err.Error() {
		return fmt.Errorf("first %w, then %w", err, closing)
	}
	var cause *dist.RankError
	if !errors.As(err, &cause) || cause.Rank != 1 {
		return fmt.Errorf("another cause: %w", err)
	}
	return fmt.Errorf("rank %d heard: %w", w.Rank(), err)
}

func TestAbortTellsEveryRank(t *testing.T) {
	each(t, func(t *testing.T, m installed) {
		out, err := m.run(t, 3, "abort")
		if err == nil {
			t.Error("the launcher reports success")
		}
		// The launcher may end the others as soon as one has ended.
		heard := 0
		for rank := range 3 {
			if strings.Contains(out, fmt.Sprintf("failed: rank %d heard: rank 1 ended the job: disk full", rank)) {
				heard++
			}
		}
		if heard == 0 || strings.Count(out, "failed:") != heard || strings.Contains(out, "\nrank 1 ended") {
			t.Errorf("%d ranks heard:\n%s", heard, out)
		}
	})
}

// deafScene ends the job on rank 0 while rank 1 computes for long.
func deafScene(w dist.Transport) error {
	if w.Rank() == 1 {
		time.Sleep(time.Hour)
	}
	w.Abort(errors.New("disk full\non this machine"))
	return nil
}

func TestAbortEndsRanksThatDoNotListen(t *testing.T) {
	each(t, func(t *testing.T, m installed) {
		out, err := m.run(t, 2, "deaf")
		if err == nil || !strings.Contains(out, "rank 0 ended the job: disk full on this machine\n") {
			t.Errorf("%v:\n%s", err, out)
		}
	})
}

// killScene loses rank 1 while the others wait for it.
func killScene(w dist.Transport) error {
	if w.Rank() == 1 {
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	send, recv := make([][]byte, w.Size()), make([][]byte, w.Size())
	recv[1] = make([]byte, 1)
	return w.Exchange(send, recv)
}

func TestKilledRankEndsTheJob(t *testing.T) {
	each(t, func(t *testing.T, m installed) {
		if out, err := m.run(t, 3, "kill"); err == nil {
			t.Errorf("the launcher reports success:\n%s", out)
		}
	})
}

// truncatedScene breaks the rule that both sides know the lengths.
func truncatedScene(w dist.Transport) error {
	send, recv := make([][]byte, w.Size()), make([][]byte, w.Size())
	if w.Rank() == 1 {
		send[0] = make([]byte, 100)
		if err := w.Exchange(send, recv); err != nil {
			return err
		}
		recv[0] = make([]byte, 1) // never comes
		return w.Exchange(send, recv)
	}
	recv[1] = make([]byte, 50)
	err := w.Exchange(send, recv)
	w.Abort(err)
	return err
}

func TestErrorsOfTheLibrary(t *testing.T) {
	each(t, func(t *testing.T, m installed) {
		out, err := m.run(t, 2, "truncated")
		if err == nil || !strings.Contains(strings.ToLower(out), "truncated") || strings.Contains(out, "panic") {
			t.Errorf("%v:\n%s", err, out)
		}
	})
}

func TestLibraryOfAnotherLauncher(t *testing.T) {
	all := mpis(t)
	each(t, func(t *testing.T, m installed) {
		for _, other := range all {
			if (m.name == "openmpi") == (other.name == "openmpi") {
				continue
			}
			lib, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(other.mpirun)), "lib", "libmpi.so.[0-9]*"))
			if len(lib) == 0 {
				t.Skipf("the library of %s does not lie beside it", other.mpirun)
			}
			out, err := m.run(t, 2, "connect", "CAROUSEL_MPI="+lib[0])
			i := slices.IndexFunc(strings.Split(out, "\n"), func(l string) bool {
				return strings.HasPrefix(l, "failed: CAROUSEL_MPI: "+lib[0]+" is ") && strings.Contains(l, "launcher started this process: start it with the launcher of that library")
			})
			if err == nil || i < 0 {
				t.Errorf("library of %s: %v:\n%s", other.name, err, out)
			}
		}
		out, err := m.run(t, 1, "connect", "CAROUSEL_MPI=/nowhere/libmpi.so")
		if err == nil || !strings.Contains(out, "failed: CAROUSEL_MPI: /nowhere/libmpi.so: ") {
			t.Errorf("%v:\n%s", err, out)
		}
		out, err = m.run(t, 1, "connect", "CAROUSEL_MPI=libc.so.6")
		if err == nil || !strings.Contains(out, "not an MPI library: libc.so.6 has no MPI_") {
			t.Errorf("%v:\n%s", err, out)
		}
	})
}

// aloneScene is what a rank sees whose library does not know its launcher.
func aloneScene() error {
	_, err := Connect(context.Background(), &dist.Place{Rank: 3, Size: 4, Launcher: "mpirun", MPI: true})
	return err
}

func TestWorldOfAnotherSize(t *testing.T) {
	each(t, func(t *testing.T, m installed) {
		out, err := m.run(t, 1, "alone")
		if err == nil || !strings.Contains(out, "makes this process rank 0 of 1, but mpirun started it as rank 3 of 4: they do not belong together") {
			t.Errorf("%v:\n%s", err, out)
		}
	})
}

func twiceScene() error {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Connect(ended, place()); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("after its context: %w", err)
	}
	w, err := Connect(context.Background(), place())
	if err != nil {
		return err
	}
	if _, err := Connect(context.Background(), place()); err == nil || !strings.Contains(err.Error(), "joined its MPI world before") {
		return fmt.Errorf("the second time: %w", err)
	}
	fmt.Println("done")
	return w.Close()
}

func TestConnectOnce(t *testing.T) {
	succeeds(t, mpis(t)[0], 1, "twice")
}

func TestLauncher(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want family
	}{
		{map[string]string{"OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "0"}, openMPI},
		{map[string]string{"PMI_SIZE": "2", "PMI_RANK": "0"}, mpich},
		{map[string]string{"PMI_SIZE": "2", "MPI_LOCALNRANKS": "2", "SLURM_PROCID": "0"}, mpich}, // mpirun in a job of Slurm
		{map[string]string{"PMI_SIZE": "2", "SLURM_PROCID": "0"}, anyMPI},                        // srun --mpi=pmi2
		{map[string]string{"PMIX_RANK": "0", "SLURM_PROCID": "0"}, anyMPI},                       // srun --mpi=pmix
	} {
		if got := launcher(func(name string) string { return c.env[name] }); got != c.want {
			t.Errorf("%v: %s, want %s", c.env, got, c.want)
		}
	}
}

func TestBinding(t *testing.T) {
	for _, c := range []struct {
		own, machine, local int
		f                   family
		want                string // a part
	}{
		{1, 8, 2, openMPI, "bound rank 0 to 1 core; the machine has 4 for each rank here: `mpirun --bind-to none`"},
		{1, 2, 0, mpich, "`mpirun -bind-to none`"},
		{1, 4, 2, anyMPI, "ask the launcher for more"},
		{1, 4, 4, openMPI, ""}, // each has its own
		{1, 1, 1, openMPI, ""},
		{2, 8, 2, openMPI, ""},
	} {
		got := binding(c.own, c.machine, &dist.Place{LocalSize: c.local, Launcher: "mpirun"}, c.f)
		if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// Open MPI's launcher binds each of two ranks to a core unless it is told not to.
func TestBindingUnderOpenMPI(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("one core")
	}
	each(t, func(t *testing.T, m installed) {
		want := m.name == "openmpi"
		out, err := m.run(t, 1, "binding", "PRTE_MCA_rmaps_default_mapping_policy=", "OMPI_MCA_rmaps_base_oversubscribe=")
		if err != nil || strings.Contains(out, "to 1 core; the machine has") != want {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// figuresScene measures what the smallest and a large operation of the ranks
// take, and how much of a core a rank takes that waits.
var figuresScene = withWorld(func(t dist.Transport) error {
	w := dist.NewWorld(t)
	one, all := make([]float64, 1), make([]float64, w.Size())
	v := make([]float32, 1<<20)
	const rounds = 200
	for _, op := range []struct {
		name string
		run  func() error
	}{
		{"Gather of 8 bytes", func() error { return w.Gather(one, all) }},
		{"Sum of 4 MB", func() error { return w.Sum(v, nil) }},
	} {
		var begin time.Time
		for i := range rounds + 20 {
			if i == 20 {
				begin = time.Now()
			}
			if err := op.run(); err != nil {
				return err
			}
		}
		if w.Rank() == 0 {
			fmt.Printf("%d ranks, %s: %v\n", w.Size(), op.name, time.Since(begin)/rounds)
		}
	}
	if w.Rank() == 1 {
		time.Sleep(time.Second)
	}
	begin, before := time.Now(), used()
	if err := w.Gather(one, all); err != nil {
		return err
	}
	if waited := time.Since(begin); w.Rank() == 0 {
		fmt.Printf("%d ranks, a rank that waits takes %.1f %% of a core\n", w.Size(), 100*(used()-before).Seconds()/waited.Seconds())
	}
	return w.Close()
})

// used returns the time that the process has had a core.
func used() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestFigures(t *testing.T) {
	if !testing.Verbose() {
		t.Skip("it only prints, with -v")
	}
	each(t, func(t *testing.T, m installed) {
		for _, n := range []int{2, 4} {
			out, err := m.run(t, n, "figures")
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
			t.Log(out)
		}
	})
}
