//go:build unix

package dist_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/dist"
)

// testRank makes this program a rank of a job, described in JSON, that adds until
// the job ends.
const testRank = "CAROUSEL_TEST_RANK"

func TestMain(m *testing.M) {
	if text := os.Getenv(testRank); text != "" {
		fmt.Println(runRank(text))
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// runRank adds numbers, of lengths that change, until an error. It prints "sums" when it has begun.
func runRank(text string) error {
	var p dist.Place
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	tr, err := dist.Connect(context.Background(), &p, &dist.Options{Silence: silence, Wait: silence})
	if err != nil {
		return err
	}
	w := dist.NewWorld(tr)
	v := make([]float32, 1<<18)
	for i := 0; ; i++ {
		part := v[:1<<(i%19)]
		for j := range part {
			part[j] = float32(w.Rank() + 1)
		}
		if err := w.Sum(part, nil); err != nil {
			return err // the process ends without a Close
		}
		if want := float32(w.Size() * (w.Size() + 1) / 2); slices.ContainsFunc(part, func(x float32) bool { return x != want }) {
			return fmt.Errorf("sum %d is not %g", i, want)
		}
		if i == 3 {
			fmt.Println("sums")
		}
	}
}

// silence of the jobs of processes: within three quarters of it a busy machine runs each.
const silence = 3 * time.Second

// process is a rank that runs.
type process struct {
	*exec.Cmd
	out *bufio.Reader
}

// startJob starts a process for each rank.
func startJob(t *testing.T, size int) []process {
	t.Helper()
	list := make([]process, size)
	for i, p := range places(t, size) {
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), testRank+"="+string(text), "GOMAXPROCS=1")
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill() })
		list[i] = process{c, bufio.NewReader(out)}
	}
	return list
}

// end is what a process prints when it ends.
func (p process) end(t *testing.T) string {
	t.Helper()
	text, err := io.ReadAll(p.out)
	if err != nil {
		t.Error(err)
	}
	p.Wait()
	return strings.TrimPrefix(strings.TrimSpace(string(text)), "sums\n")
}

// Whichever rank is killed, at any moment from the start on, the others end with its
// number, not that of one which ended because of it. CAROUSEL_TEST_KILLS is the number
// of jobs.
func TestKilled(t *testing.T) {
	t.Parallel()
	kills, _ := strconv.Atoi(os.Getenv("CAROUSEL_TEST_KILLS"))
	if kills == 0 {
		kills = 12
		if testing.Short() {
			kills = 3
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	longest := time.Duration(0)
	for i := range kills {
		job := startJob(t, 3)
		victim := r.IntN(3)
		early := i%3 == 0 // while the ranks still meet
		for _, p := range job {
			if early {
				break
			}
			if line, err := p.out.ReadString('\n'); err != nil || line != "sums\n" {
				t.Fatalf("%q, %v", line, err)
			}
		}
		time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond)
		if err := job[victim].Process.Kill(); err != nil {
			t.Fatal(err)
		}
		since := time.Now()
		for rank, p := range job {
			text := p.end(t)
			named := strings.HasPrefix(text, fmt.Sprintf("rank %d at 127.0.0.1:", victim)) && strings.Contains(text, "is lost")
			if early { // it may not have come yet, or rank 0 has ended because of it before this one came
				named = named || strings.Contains(text, fmt.Sprintf("rank %d of 3 did not come", victim)) || strings.Contains(text, "did not reach rank 0")
			}
			if rank != victim && !named {
				t.Errorf("job %d: rank %d was killed; rank %d says %q", i, victim, rank, text)
			}
		}
		longest = max(longest, time.Since(since))
	}
	t.Logf("%d kills; the last rank ended at most %v after one", kills, longest)
}

// A rank that is stopped is lost after the silence, for itself too when it continues;
// one that is stopped for less is not.
func TestStopped(t *testing.T) {
	t.Parallel()
	job := startJob(t, 3)
	for _, p := range job {
		if line, err := p.out.ReadString('\n'); err != nil || line != "sums\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	signal := func(s os.Signal) {
		t.Helper()
		if err := job[1].Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	time.Sleep(silence / 3)
	signal(syscall.SIGCONT)
	time.Sleep(silence / 3)
	signal(syscall.SIGSTOP)
	stopped := time.Now()
	for _, rank := range []int{0, 2} {
		if text := job[rank].end(t); !strings.HasPrefix(text, "rank 1 at ") || !strings.Contains(text, "nothing was heard of it for 3s") {
			t.Errorf("rank %d says %q", rank, text)
		}
	}
	if d := time.Since(stopped); d < silence*9/10 {
		t.Errorf("a stopped rank is lost after %v already", d)
	}
	signal(syscall.SIGCONT)
	if text := job[1].end(t); !strings.HasPrefix(text, "rank 1 ") {
		t.Errorf("the stopped rank says %q", text)
	}
}
