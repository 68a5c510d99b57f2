package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/tune"
)

// A file that was cut off at any byte of its log, or has nonsense from there on, holds all transactions
// before the cut and nothing of those behind it.
func TestTorn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "study.db")
	s, err := Open(t.Context(), path, true)
	must(t, err)
	defer s.Close()
	state := func(s tune.Store) string {
		list, revision := all(t, s, 0)
		text := fmt.Sprintf("%d %+v", revision, list)
		for trial := range 12 {
			blob, err := s.Restore(t.Context(), trial, 0)
			must(t, err)
			text += fmt.Sprintf(" %d:%x", len(blob), blob[:min(len(blob), 4)])
		}
		return text
	}
	states := []string{state(s)} // after each transaction
	sizes := []int64{0}          // of the log by then
	note := func(err error) {
		t.Helper()
		must(t, err)
		info, err := os.Stat(path + "-wal")
		must(t, err)
		states, sizes = append(states, state(s)), append(sizes, info.Size())
	}
	ctx := t.Context()
	for n := range 12 {
		note(s.Add(ctx, running(n), time.Hour))
		for at := range 3 {
			note(s.Report(ctx, n, 1, tune.Point{At: at, Values: []float64{float64(n)}}))
			note(s.Checkpoint(ctx, n, 1, bytes.Repeat([]byte{byte(n), byte(at)}, 4000)))
		}
		end := running(n)
		end.Epoch, end.State, end.Result = 1, tune.Complete, []float64{1}
		note(s.Finish(ctx, end, n%2 == 0))
	}
	file, err := os.ReadFile(path)
	must(t, err)
	log, err := os.ReadFile(path + "-wal")
	must(t, err)
	if int64(len(log)) != sizes[len(sizes)-1] || sizes[1] <= sizes[0] {
		t.Fatal("the log was not written as the test expects", len(log), sizes)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 40 {
		cut := r.IntN(len(log) + 1)
		if i%3 == 0 {
			cut = int(sizes[r.IntN(len(sizes))]) - i/3%2 // the end of a transaction, or one byte less
		}
		want := 0
		for k, size := range sizes {
			if size <= int64(cut) {
				want = k
			}
		}
		torn := bytes.Clone(log[:max(cut, 0)])
		if i%2 == 0 { // blocks that never came, which may hold anything
			for len(torn) < len(log) {
				torn = append(torn, byte(r.Uint32()))
			}
		}
		copied := filepath.Join(dir, fmt.Sprint(i), "study.db")
		must(t, os.Mkdir(filepath.Dir(copied), 0o755))
		must(t, os.WriteFile(copied, file, 0o644))
		must(t, os.WriteFile(copied+"-wal", torn, 0o644))
		c, err := Open(ctx, copied, false)
		must(t, err)
		if got := state(c); got != states[want] {
			t.Errorf("cut at byte %d of %d: expected the state after transaction %d:\n%s\ngot\n%s", cut, len(log), want, states[want], got)
		}
		must(t, c.Set(ctx, "alive", "", "yes")) // and it goes on
		must(t, c.Close())
	}
}
