package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/tune"
)

const killedTrials = 60

// killedStudy is what the workers work on: trials that pause and go on, and some that fail.
func killedStudy(t testing.TB, store tune.Store) *tune.Study {
	space, err := tune.ParseSpace("space.yaml", "rate: {low: 1e-3, high: 1, log: true, default: 0.1}\nsize: {low: 1, high: 9, type: int, default: 4}")
	if err == nil {
		var s *tune.Study
		s, err = tune.Open(context.Background(), store, &tune.Header{Options: tune.Options{
			Trials: killedTrials, Sampler: "random", Lag: 3, Seed: 2, Pruner: "asha", Resource: 27, Least: 3, Resumable: true,
		}}, space)
		if err == nil {
			s.SetLease(200 * time.Millisecond)
			return s
		}
	}
	if t == nil {
		panic(err)
	}
	t.Fatal(err)
	return nil
}

// A progress is the checkpoint of a made-up training: what it computes next depends on all that went before.
type progress struct {
	At int64
	X  float64
}

// train trains a trial from where it was. step is called at the beginning of each step.
func train(ctx context.Context, t *tune.Trial, began func(at int) error, step func(at int) error) ([]float64, error) {
	p := progress{X: 1}
	blob, err := t.Saved(ctx)
	if err != nil {
		return nil, err
	}
	if blob != nil {
		if _, err := binary.Decode(blob, binary.LittleEndian, &p); err != nil {
			return nil, err
		}
	}
	if err := began(int(p.At)); err != nil {
		return nil, err
	}
	for stop := t.Resume(int(p.At)); !stop && p.At < 27; {
		p.At++
		if err := step(int(p.At)); err != nil {
			return nil, err
		}
		if t.Number%11 == 7 && p.At == 2 {
			return nil, errors.New("out of luck")
		}
		p.X = math.Cos(3*p.X+t.Float("rate")*float64(p.At)) + 1/float64(t.Int("size"))
		if stop, err = t.Report(ctx, int(p.At), 10*int(p.At), p.X); err != nil {
			return nil, err
		}
		blob, _ := binary.Append(nil, binary.LittleEndian, p)
		if err := t.Save(ctx, blob); err != nil {
			return nil, err
		}
	}
	return []float64{p.X}, nil
}

// worker is the process that is killed: it works on the study at an address, and appends to a log
// what it does, a line each.
func worker(address, path string) error {
	log, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	ctx := context.Background()
	store, err := Open(ctx, address, false)
	if err != nil {
		return err
	}
	return killedStudy(nil, store).Run(ctx, func(ctx context.Context, t *tune.Trial) ([]float64, error) {
		say := func(what string, at int) error {
			_, err := fmt.Fprintf(log, "%s %d %d %d %d\n", what, t.Piece.N, t.Piece.Epoch, t.From, at)
			return err
		}
		return train(ctx, t, func(at int) error { return say("begin", at) }, func(at int) error {
			time.Sleep(2 * time.Millisecond)
			return say("step", at)
		})
	})
}

// outcome returns all trials as text, and the number of steps that were needed.
func outcome(t *testing.T, s *tune.Study) (text string, steps int) {
	list, err := s.Trials(t.Context())
	must(t, err)
	for _, r := range list {
		r.Seconds = 0
		if r.Error == "" {
			steps += r.Steps / 10
		} else {
			steps += 2
		}
		line, err := json.Marshal(r)
		must(t, err)
		text += string(line) + "\n"
	}
	return text, steps
}

// Workers that are killed at any moment, or stopped until others have taken their trials, do not
// change the study: the trials are those of a worker that is left alone, none is done twice, and each loss costs
// at most the step that was at work.
func TestKill(t *testing.T) {
	undisturbed := killedStudy(t, tune.NewMemory())
	nothing := func(int) error { return nil }
	must(t, undisturbed.Run(t.Context(), func(ctx context.Context, t *tune.Trial) ([]float64, error) {
		return train(ctx, t, nothing, nothing)
	}))
	want, needed := outcome(t, undisturbed)
	for name, address := range map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return filepath.Join(t.TempDir(), "study.db") },
		"postgres": func(t *testing.T) string { return newPostgresStudy(t) },
	} {
		t.Run(name, func(t *testing.T) { killWorkers(t, address(t), want, needed) })
	}
}

func killWorkers(t *testing.T, address, want string, needed int) {
	const workers, kills = 4, 50
	store, err := Open(t.Context(), address, true)
	must(t, err)
	defer store.Close()
	study := killedStudy(t, store)
	log := filepath.Join(t.TempDir(), "log")
	must(t, os.WriteFile(log, nil, 0o644))

	said, err := os.Create(log + ".err")
	must(t, err)
	defer said.Close()
	errs := func() string { text, _ := os.ReadFile(said.Name()); return string(text) }
	start := func() *exec.Cmd {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "TUNE_STUDY="+address, "TUNE_LOG="+log)
		c.Stdout, c.Stderr = os.Stdout, said
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		must(t, c.Start())
		return c
	}
	end := func(c *exec.Cmd) {
		c.Process.Kill()
		c.Wait()
	}
	var team []*exec.Cmd
	for range workers {
		team = append(team, start())
	}
	defer func() {
		for _, c := range team {
			end(c)
		}
	}()
	finished := map[int]string{}
	look := func() (busy []string) {
		pieces, _, err := store.Read(t.Context(), 0)
		must(t, err)
		for n := range finished {
			if n >= len(pieces) {
				t.Fatalf("piece %d was lost", n)
			}
		}
		for _, p := range pieces {
			text := fmt.Sprintf("%+v", *p)
			if before, is := finished[p.N]; is && before != text {
				t.Fatalf("a finished piece has changed from %s to %s", before, text)
			}
			if p.Finished() {
				finished[p.N] = text
			} else {
				busy = append(busy, p.Worker)
			}
		}
		return busy
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1)) // any moment will do
	for i := range kills {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			text, err := os.ReadFile(log)
			must(t, err)
			if bytes.Count(text, []byte("\nstep")) > i*needed/(kills+5) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("after %d kills nobody works any more: %s", i, errs())
			}
		}
		time.Sleep(time.Duration(r.IntN(10000)) * time.Microsecond)
		busy := look()
		w := slices.IndexFunc(team, func(c *exec.Cmd) bool {
			return slices.ContainsFunc(busy, func(worker string) bool { return strings.HasSuffix(worker, fmt.Sprint("/", c.Process.Pid)) })
		})
		if w < 0 || i%3 == 0 {
			w = r.IntN(workers)
		}
		if i%10 == 9 { // it does not know that time has passed
			must(t, team[w].Process.Signal(syscall.SIGSTOP))
			time.Sleep(300 * time.Millisecond)
			must(t, team[w].Process.Signal(syscall.SIGCONT))
			w = (w + 1) % workers
		}
		end(team[w])
		team[w] = start()
	}
	for _, c := range team {
		if err := c.Wait(); err != nil {
			t.Fatalf("a worker that was not killed: %v: %s", err, errs())
		}
	}
	if text := errs(); text != "" {
		t.Error(text)
	}
	look()
	if got, _ := outcome(t, study); got != want {
		a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Fatalf("of %d trials, expected %d, this one differs:\n%s\n%s", len(a)-1, len(b)-1, a[i], b[i])
			}
		}
		t.Fatalf("%d trials, expected %d", len(a)-1, len(b)-1)
	}

	pieces, _ := all(t, store, 0)
	lost := 0
	for _, p := range pieces {
		lost += p.Epoch - 1
	}
	text, err := os.ReadFile(log)
	must(t, err)
	steps, resumed := 0, 0
	saved := map[int]int{}  // by piece: the last step that was begun
	taken := map[int]bool{} // by piece: another worker has begun it anew
	for line := range strings.Lines(string(text)) {
		var what string
		var n, epoch, from, at int
		if _, err := fmt.Sscan(line, &what, &n, &epoch, &from, &at); err != nil {
			t.Fatal(line, err)
		}
		switch what {
		case "step":
			steps++
			saved[n] = at
		case "begin":
			// A worker that was stopped before it began finds what another has saved since, and may save nothing.
			if taken[n] = taken[n] || epoch > 1; !taken[n] && at != from {
				t.Errorf("piece %d began at %d, not at %d", n, at, from)
			}
			if epoch > 1 && at > from {
				resumed++
			}
			if epoch > 1 && saved[n] > 0 && at < saved[n]-1 {
				t.Errorf("piece %d had come to step %d and was resumed after %d", n, saved[n], at)
			}
		}
	}
	t.Logf("%d pieces, %d lost by their workers, %d resumed in the middle, %d steps of which %d again", len(pieces), lost, resumed, steps, steps-needed)
	if steps < needed || steps > needed+lost {
		t.Errorf("%d steps were done of %d that are needed, with %d losses", steps, needed, lost)
	}
	if lost < kills/5 || resumed == 0 {
		t.Errorf("%d of %d kills hit a worker at work, %d trials were resumed in the middle", lost, kills, resumed)
	}
}
