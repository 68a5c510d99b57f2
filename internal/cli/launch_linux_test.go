package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/dist"
)

// training is a small training, and the weights that it leaves in one process.
type training struct {
	dir  string
	args []string
	want []byte
}

// newTraining trains for some epochs of 9 steps of two batches.
func newTraining(t *testing.T, epochs int) *training {
	t.Helper()
	one := &training{dir: t.TempDir()}
	table := filepath.Join(one.dir, "hours.csv")
	if err := os.WriteFile(table, madeUp(400, ""), 0o600); err != nil {
		t.Fatal(err)
	}
	one.args = []string{"train", "forecast", "--data", table, "--time", "time", "--target", "y", "--window", "24", "--horizon", "6",
		"--hidden", "8", "--layers", "1", "--patience", "-1", "--epochs", strconv.Itoa(epochs)}
	one.run(t, nil, one.on("alone", "--accumulate", "2"))
	one.want = one.weights(t, "alone")
	return one
}

// on is the command of the training that writes to a directory, with further arguments.
func (one *training) on(out string, more ...string) []string {
	return slices.Concat(one.args, []string{"--out", filepath.Join(one.dir, out)}, more)
}

func (one *training) weights(t *testing.T, out string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(one.dir, out, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// launched are the arguments of launch for n ranks with those of a command.
func launched(n int, args []string) []string {
	return append([]string{"launch", "-n", strconv.Itoa(n), "--"}, args...)
}

// started is a command that was started as a process.
type started struct {
	*exec.Cmd
	stdout, stderr lockedBuffer
}

func (one *training) start(t *testing.T, env, args []string) *started {
	t.Helper()
	p := &started{Cmd: exec.Command(os.Args[0], args...)}
	p.Args[0] = "carousel" // TestMain goes by it
	p.Env = append(os.Environ(), env...)
	p.Stdout, p.Stderr = &p.stdout, &p.stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Process.Kill() })
	return p
}

// end waits for the command's end, which must come soon, and returns its exit code.
func (p *started) end(t *testing.T) int {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- p.Wait() }()
	select {
	case <-ended:
	case <-time.After(5 * time.Minute):
		_ = p.Process.Kill()
		t.Fatalf("%q hangs: %s", p.Args, p.stderr.String())
	}
	return p.ProcessState.ExitCode()
}

// run runs a command to its good end.
func (one *training) run(t *testing.T, env, args []string) *started {
	t.Helper()
	p := one.start(t, env, args)
	if code := p.end(t); code != exitOK {
		t.Fatalf("%q: exit %d: %s", args, code, p.stderr.String())
	}
	return p
}

// trains waits until a training in a directory has done n more epochs.
func (one *training) trains(t *testing.T, p *started, out string, n int) {
	t.Helper()
	lines := func() int {
		text, _ := os.ReadFile(filepath.Join(one.dir, out, "metrics.jsonl"))
		return bytes.Count(text, []byte("\n"))
	}
	// A run that is resumed cuts the file to the epochs of its checkpoint first.
	for before, end := lines(), time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		now := lines()
		if before = min(before, now); now >= before+n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no epoch ends: %s", p.stderr.String())
		}
	}
}

// rank is the process id of a launcher's rank.
func (p *started) rank(t *testing.T, rank int) int {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.Process.Pid))
		for _, file := range tasks {
			text, _ := os.ReadFile(file)
			for _, pid := range strings.Fields(string(text)) {
				env, _ := os.ReadFile("/proc/" + pid + "/environ")
				if bytes.Contains(env, fmt.Appendf(nil, "\x00CAROUSEL_RANK=%d\x00", rank)) {
					n, _ := strconv.Atoi(pid)
					return n
				}
			}
		}
	}
	t.Fatalf("there is no rank %d: %s", rank, p.stderr.String())
	return 0
}

// lastLines are the last n lines of a text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// A launch that is interrupted goes on as a launch, loses a rank to kill -9, and ends in one
// process, with the bits of a training that was left alone.
func TestFaultsOfALaunch(t *testing.T) {
	t.Parallel()
	one := newTraining(t, 60)

	p := one.start(t, nil, launched(2, one.on("run")))
	one.trains(t, p, "run", 2)
	_ = p.Process.Signal(syscall.SIGTERM)
	if code := p.end(t); code != exitInterrupted {
		t.Fatalf("interrupted: exit %d: %s", code, p.stderr.String())
	}
	if last := lastLines(p.stderr.String(), 1); !strings.HasPrefix(last, "carousel: interrupted at step ") || !strings.Contains(last, "; to continue: carousel launch -n 2 -- train forecast ") ||
		!strings.HasSuffix(last, " --resume") || strings.Contains(p.stderr.String(), "[rank 1]") {
		t.Errorf("interrupted: %s", p.stderr.String())
	}

	p = one.start(t, nil, launched(2, one.on("run", "--resume")))
	one.trains(t, p, "run", 2)
	_ = syscall.Kill(p.rank(t, 1), syscall.SIGKILL)
	begun := time.Now()
	if code := p.end(t); code != exitFailure {
		t.Fatalf("rank 1 killed: exit %d: %s", code, p.stderr.String())
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the others end %v after a rank was killed", took)
	}
	if last := strings.Split(lastLines(p.stderr.String(), 2), "\n"); !strings.HasPrefix(last[0], "carousel: rank 1 ") || last[1] != "carousel: rank 1 was ended by a signal (signal: killed)" {
		t.Errorf("rank 1 killed: %s", p.stderr.String())
	}

	one.run(t, nil, one.on("run", "--resume", "--accumulate", "2"))
	if !bytes.Equal(one.weights(t, "run"), one.want) {
		t.Error("the weights differ from those of a training that was left alone")
	}
}

// Ranks end with a launcher that is killed, and at its second signal.
func TestEndOfALauncher(t *testing.T) {
	t.Parallel()
	one := newTraining(t, 1)
	one.args = append(one.args, "--epochs", "100000", "--accumulate", "1")
	gone := func(pid int) bool {
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || bytes.Contains(stat, []byte(") Z ")) {
				return true
			}
		}
		return false
	}
	for name, end := range map[string]func(p *started){
		"killed": func(p *started) { _ = p.Process.Kill() },
		"two signals": func(p *started) {
			_ = p.Process.Signal(syscall.SIGINT)
			_ = p.Process.Signal(syscall.SIGTERM)
		},
	} {
		out := strings.Fields(name)[0]
		p := one.start(t, nil, launched(2, one.on(out)))
		one.trains(t, p, out, 1)
		ranks := []int{p.rank(t, 0), p.rank(t, 1)}
		end(p)
		code := p.end(t)
		for i, pid := range ranks {
			if !gone(pid) {
				t.Errorf("%s: rank %d is still there", name, i)
			}
		}
		if name == "two signals" && code != exitInterrupted {
			t.Errorf("%s: exit %d: %s", name, code, p.stderr.String())
		}
	}
}

// Kills of random ranks at random moments lose nothing. CAROUSEL_KILLS is their number; with
// it ranks live long enough to write checkpoints.
func TestKills(t *testing.T) {
	kills, epochs, longest := 3, 30, time.Second
	if n, err := strconv.Atoi(os.Getenv("CAROUSEL_KILLS")); err == nil {
		kills, epochs, longest = n, 30*n, 5*time.Second
	}
	t.Parallel()
	one := newTraining(t, epochs)
	r := rand.New(rand.NewPCG(1, uint64(kills)))
	begun, resumed := 0, 0 // trainings that were killed, and not their processes before; those that went on from a checkpoint
	for i := range kills {
		p := one.start(t, nil, launched(2, one.on("run", "--resume")))
		victim := p.rank(t, r.IntN(2))
		time.Sleep(time.Duration(r.Float64() * float64(longest)))
		_ = syscall.Kill(victim, syscall.SIGKILL)
		switch code := p.end(t); {
		case code == exitOK: // it was too late
			if err := os.RemoveAll(filepath.Join(one.dir, "run")); err != nil {
				t.Fatal(err)
			}
		case code != exitFailure || !strings.Contains(lastLines(p.stderr.String(), 1), "was ended by a signal"):
			t.Fatalf("kill %d: exit %d: %s", i+1, code, p.stderr.String())
		case strings.Contains(p.stderr.String(), " weights\n"):
			begun++
			if !strings.Contains(p.stderr.String(), "epoch 1/") && strings.Contains(p.stderr.String(), "epoch ") {
				resumed++
			}
		}
	}
	one.run(t, nil, launched(2, one.on("run", "--resume")))
	if !bytes.Equal(one.weights(t, "run"), one.want) {
		t.Error("the weights differ from those of a training that was left alone")
	}
	t.Logf("%d kills, %d of them within the training, which %d times had been resumed behind its first epoch", kills, begun, resumed)
}

// freeAddress is where rank 0 of a test may listen.
func freeAddress(t *testing.T) (host, port string) {
	t.Helper()
	n, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1", strconv.Itoa(n)
}

// Processes that other launchers started find each other by these launchers' variables.
func TestPlacesOfOtherLaunchers(t *testing.T) {
	t.Parallel()
	one := newTraining(t, 2)
	job := strconv.Itoa(100000 + rand.IntN(100000))
	host, port := freeAddress(t)
	pet, petPort := freeAddress(t)
	node, nodePort := freeAddress(t)
	jax, jaxPort := freeAddress(t)
	for name, env := range map[string]func(rank string) []string{
		"torchrun": func(rank string) []string {
			return []string{"RANK=" + rank, "WORLD_SIZE=2", "LOCAL_RANK=" + rank, "LOCAL_WORLD_SIZE=2", "MASTER_ADDR=" + host, "MASTER_PORT=" + port, "TORCHELASTIC_RUN_ID=" + job}
		},
		"Kubeflow's torch policy": func(rank string) []string {
			return []string{"PET_NNODES=2", "PET_NPROC_PER_NODE=1", "PET_NODE_RANK=" + rank, "PET_MASTER_ADDR=" + pet, "PET_MASTER_PORT=" + petPort}
		},
		dist.Launch: func(rank string) []string {
			return []string{"PET_NNODES=2", "PET_NPROC_PER_NODE=1", "PET_NODE_RANK=" + rank, "PET_MASTER_ADDR=" + node, "PET_MASTER_PORT=" + nodePort}
		},
		"Kubeflow's jax policy": func(rank string) []string {
			return []string{"JAX_NUM_PROCESSES=2", "JAX_PROCESS_ID=" + rank, "JAX_COORDINATOR_ADDRESS=" + net.JoinHostPort(jax, jaxPort)}
		},
		"Slurm": func(rank string) []string {
			return []string{"SLURM_JOB_ID=" + job, "SLURM_STEP_ID=0", "SLURM_STEP_NUM_TASKS=2", "SLURM_PROCID=" + rank, "SLURM_LOCALID=" + rank, "SLURM_STEP_NODELIST=localhost", "SLURM_NTASKS=2"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := strings.Trim(strings.ReplaceAll(name, " ", "-"), "'")
			args := one.on(out)
			if name == dist.Launch { // on each of two nodes
				args = append([]string{"launch", "--"}, args...)
			}
			other := one.start(t, env("1"), args)
			first := one.run(t, env("0"), args)
			if code := other.end(t); code != exitOK || other.stdout.String() != "" || other.stderr.String() != "" {
				t.Errorf("rank 1: exit %d, %s%s", code, other.stdout.String(), other.stderr.String())
			}
			if !strings.HasPrefix(first.stderr.String(), "2 ranks ("+name+")\n") {
				t.Errorf("rank 0 says %s", first.stderr.String())
			}
			if !bytes.Equal(one.weights(t, out), one.want) {
				t.Error("the weights differ from those of one process")
			}
		})
	}
}

// TestTorchrun is the same under the real one, of CAROUSEL_TORCH_PYTHON.
func TestTorchrun(t *testing.T) {
	python := os.Getenv("CAROUSEL_TORCH_PYTHON")
	if python == "" {
		t.Skip("CAROUSEL_TORCH_PYTHON is not set")
	}
	one := newTraining(t, 2)
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(one.dir, "carousel")
	if err := os.Symlink(self, binary); err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{{"--standalone"}, {"--master-port", func() string { _, port := freeAddress(t); return port }()}} {
		out := flags[0]
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
		defer stop()
		args := slices.Concat([]string{"-m", "torch.distributed.run"}, flags, []string{"--no-python", "--nproc-per-node", "2", binary}, one.on(out))
		text, err := exec.CommandContext(ctx, python, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v: %s", args, err, text)
		}
		if !bytes.Contains(text, []byte("2 ranks (torchrun)\n")) || !bytes.Equal(one.weights(t, out), one.want) {
			t.Errorf("%s: other weights, or %s", out, text)
		}
	}
}

// A rank uses its share of the cores, or all to which it was bound.
func TestThreadsOfARank(t *testing.T) {
	for _, c := range []struct {
		p                         dist.Place
		most, bound, online, want int
	}{
		{dist.Place{LocalSize: 2, Launcher: dist.Launch}, 8, 8, 8, 4},
		{dist.Place{LocalSize: 3, Launcher: dist.Launch}, 8, 8, 8, 2},
		{dist.Place{LocalSize: 4, Launcher: dist.Launch}, 2, 2, 2, 1},
		{dist.Place{LocalSize: 4, Launcher: dist.Launch}, 4, 64, 64, 1}, // a container's quota
		{dist.Place{LocalSize: 1, Launcher: "torchrun"}, 8, 8, 8, 8},
		{dist.Place{LocalSize: 0, Launcher: "torchrun"}, 8, 8, 8, 8},
		{dist.Place{LocalSize: 4, Launcher: "Slurm"}, 4, 4, 16, 4},
		{dist.Place{LocalSize: 4, Launcher: "Slurm"}, 16, 16, 16, 4},
		{dist.Place{LocalSize: 2, Launcher: "Open MPI's mpirun", MPI: true}, 1, 1, 2, 1},
	} {
		if got := threadsOf(&c.p, c.most, c.bound, c.online); got != c.want {
			t.Errorf("%+v: %d threads, want %d", c, got, c.want)
		}
	}
}

func TestTimelineOf(t *testing.T) {
	for _, c := range []struct {
		file string
		rank int
		want string
	}{{"a/t.json", 0, "a/t.json"}, {"a/t.json", 1, "a/t.rank1.json"}, {"trace", 2, "trace.rank2"}, {"", 1, ""}} {
		if got := timelineOf(c.file, c.rank); got != c.want {
			t.Errorf("%q of rank %d is %q, want %q", c.file, c.rank, got, c.want)
		}
	}
}

// The rank that is named is the one that made the others fail.
func TestRankLines(t *testing.T) {
	var out lockedBuffer
	p := &rankLines{w: &out, rank: 2, printing: new(sync.Mutex)}
	for _, part := range []string{"Note", ": one\ncarousel: rank 1 is lost\n", "half"} {
		if _, err := p.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	p.end()
	if got, want := out.String(), "[rank 2] Note: one\n[rank 2] half\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	if p.last() != ": rank 1 is lost" || !p.namesAnother() {
		t.Errorf("last %q, of another: %v", p.last(), p.namesAnother())
	}
	p.line("carousel: rank 2 is wrong")
	if p.namesAnother() {
		t.Error("its own name is not another's")
	}
	var e error = &launchFailed{code: 3}
	if !errors.As(e, new(*launchFailed)) || exitCode(e) != 3 {
		t.Error("the exit code of a launch is not its rank's")
	}
}

// The rank that had to be killed, because it did not end, is named before rank 0, which may only
// have said that it does not hear it.
func TestStuckRank(t *testing.T) {
	ended := func(r *rankProcess) *rankProcess {
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
		if r.killed {
			_ = r.Process.Kill()
		}
		_ = r.Wait()
		return r
	}
	first := ended(&rankProcess{Cmd: exec.Command("false")})
	stuck := ended(&rankProcess{Cmd: exec.Command("sleep", "60"), rank: 1, said: new(rankLines), killed: true, stuck: true})
	failed := ended(&rankProcess{Cmd: exec.Command("false"), rank: 2, said: &rankLines{rank: 2, final: "disk full"}})
	if first.guilt() >= stuck.guilt() || stuck.guilt() >= failed.guilt() {
		t.Errorf("rank 0 that failed has %d, one that was stuck %d, one that failed by itself %d", first.guilt(), stuck.guilt(), failed.guilt())
	}
}

// What cannot be right is refused in one line before a rank is started.
func TestLaunchMisuse(t *testing.T) {
	for flags, want := range map[string]string{
		"--accumulate 3": "accumulate must be a power of two with several ranks, got 3 with 2 ranks; 6 batches to a step can be had with 1 rank with accumulate 6, 3 with 2 or 6 with 1",
		"--reduce f64":   `reduce: want f32, bf16, got "f64"; did you mean f32?`,
	} {
		var out, log bytes.Buffer
		line := "launch -n 2 -- train classify --data none.csv --out " + t.TempDir() + " --quiet " + flags
		if code := run(t.Context(), strings.Fields(line), nil, &out, &log); code != exitMisuse || log.String() != "carousel: "+want+"\n" || out.Len() > 0 {
			t.Errorf("%s: exit %d, %q", flags, code, log.String())
		}
	}
}

// A rank is as quiet as it was asked to be.
func TestQuietRank(t *testing.T) {
	for name, value := range map[string]string{"RANK": "1", "RANKS": "2", "ADDRESS": "localhost:1", "SECRET": "s"} {
		t.Setenv("CAROUSEL_"+name, value)
	}
	for _, quiet := range []bool{true, false} {
		var log bytes.Buffer
		a := &app{quiet: quiet, stderr: &log, threads: 1}
		if err := a.findPlace(); err != nil {
			t.Fatal(err)
		}
		if a.rankNote("one"); (log.Len() > 0) == quiet {
			t.Errorf("quiet %v: noted %q", quiet, log.String())
		}
	}
}

// A rank with another test file, or none, is refused: the scores are computed in shares.
func TestOtherTestFile(t *testing.T) {
	t.Parallel()
	one := &training{dir: t.TempDir()}
	for name, rows := range map[string]int{"data.txt": 40, "a.txt": 20, "b.txt": 30} {
		text := strings.Repeat("1 good film\n0 bad film\n", rows/2)
		if err := os.WriteFile(filepath.Join(one.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one.args = []string{"train", "classify", "--data", filepath.Join(one.dir, "data.txt"), "--format", "label-first", "--hidden", "4", "--embedding", "4", "--epochs", "1", "--quiet"}
	for name, test := range map[string]string{"other": filepath.Join(one.dir, "b.txt"), "none": ""} {
		host, port := freeAddress(t)
		rank := func(n, test string) *started {
			env := []string{"CAROUSEL_RANK=" + n, "CAROUSEL_RANKS=2", "CAROUSEL_ADDRESS=" + net.JoinHostPort(host, port), "CAROUSEL_SECRET=s"}
			return one.start(t, env, one.on(name, "--test", test))
		}
		for i, p := range []*started{rank("0", filepath.Join(one.dir, "a.txt")), rank("1", test)} {
			if code := p.end(t); code != exitFailure || !strings.Contains(p.stderr.String(), "rank 1 has another file of --test than rank 0; give all ranks the same files\n") {
				t.Errorf("%s: rank %d: exit %d: %s", name, i, code, p.stderr.String())
			}
		}
	}
}
