package generate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

func numbered(lengths ...int) *corpus {
	var texts [][]int32
	id := int32(0)
	for _, n := range lengths {
		var d []int32
		for range n {
			d = append(d, id)
			id++
		}
		texts = append(texts, d)
	}
	return corpusOf(texts...)
}

// characters returns the number of characters of documents.
func characters(t *testing.T, docs []data.Document) int {
	t.Helper()
	n, _, err := measure(t.Context(), docs, "")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestStreams follows every row through some epochs: each token but the first of
// a document is predicted once an epoch, from the one before it, and a row goes
// on where its last segment ended, except where it says that it begins.
func TestStreams(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for try := range 60 {
		var lengths []int
		for range 1 + r.IntN(6) {
			lengths = append(lengths, 2+r.IntN(60))
		}
		rows, steps, whole := 1+r.IntN(5), 1+r.IntN(12), r.IntN(2) == 0
		t.Run(fmt.Sprintf("%d: %v in %d rows of %d", try, lengths, rows, steps), func(t *testing.T) {
			c := numbered(lengths...)
			s := newStreams(c, rows, steps, whole, 7)
			b := &batch{}
			for epoch := range 3 {
				var seen []int32
				last := make([]int32, rows)
				for n := range s.batches {
					if err := s.load(b, epoch, n, 0, rows); err != nil {
						t.Fatal(err)
					}
					if b.B != rows || b.T > steps || b.T == 0 {
						t.Fatalf("batch of %d rows and %d steps", b.B, b.T)
					}
					for i := range rows {
						for k := range b.T {
							id, target := b.ids[i*b.T+k], b.targets[i*b.T+k]
							if k >= int(b.lengths[i]) {
								if target != ignored {
									t.Fatalf("a target past the row's end")
								}
								continue
							}
							if target != id+1 {
								t.Fatalf("%d is to be predicted from %d", target, id)
							}
							if fresh := k == 0 && b.begins[i]; !fresh && id != last[i] {
								t.Fatalf("row %d reads %d after %d", i, id, last[i])
							}
							last[i] = target
							seen = append(seen, target)
						}
					}
				}
				slices.Sort(seen)
				var want []int32
				for _, d := range c.docs {
					for id := d.from + 1; id < d.to; id++ {
						want = append(want, int32(id))
					}
				}
				if !slices.Equal(seen, want) {
					t.Fatalf("epoch %d predicts %v", epoch, seen)
				}
			}
		})
	}
}

// TestStreamsOfOneText: one document becomes as many contiguous streams as there are rows.
func TestStreamsOfOneText(t *testing.T) {
	s := newStreams(numbered(1001), 10, 25, false, 1)
	b := &batch{}
	if s.batches != 4 {
		t.Fatalf("%d batches, want 4", s.batches)
	}
	if err := s.load(b, 0, 1, 0, 10); err != nil {
		t.Fatal(err)
	}
	if b.ragged || b.tokens != 250 || slices.Contains(b.begins, true) {
		t.Errorf("the second segment has %d tokens, ragged %v, begins %v", b.tokens, b.ragged, b.begins)
	}
}

func TestDivide(t *testing.T) {
	cfg := Defaults()
	text := strings.Repeat("héllo wörld\n", 200)
	join := func(docs []data.Document) string {
		var b strings.Builder
		for _, d := range docs {
			b.WriteString(d.Text)
		}
		return b.String()
	}
	for split, sizes := range map[string][3]int{"": {2160, 240, 0}, "0.8,0.1,0.1": {1920, 240, 240}, "0.9,0,0.1": {2160, 0, 240}, "1,0,0": {2400, 0, 0}} {
		cfg.Split = split
		d, err := NewData([]data.Document{{File: "a", Text: text}}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]int{characters(t, d.Training), characters(t, d.Validation), characters(t, d.Test)}; got != sizes {
			t.Errorf("split %q: %v characters, want %v", split, got, sizes)
		}
		if join(d.Training)+join(d.Validation)+join(d.Test) != text || join(d.Of(task.All)) != text || len(d.Of(task.All)) != 1 {
			t.Errorf("split %q: the parts are not the text", split)
		}
	}
	var many []data.Document
	for i := range 300 {
		many = append(many, data.Document{File: fmt.Sprint(i), Text: strings.Repeat("x", 50+i%7)})
	}
	cfg.Split = "0.8,0.1,0.1"
	d, err := NewData(many, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(d.Training) + len(d.Validation) + len(d.Test); n != 300 || len(d.Validation) < 25 || len(d.Validation) > 35 || len(d.Test) < 25 || len(d.Test) > 35 {
		t.Errorf("%d, %d and %d documents", len(d.Training), len(d.Validation), len(d.Test))
	}
	for _, bad := range []string{"0.9", "0.9,0.2,0.1", "0,1,0", "a,b,c", "1,-0.5,0.5", "nan,0,0"} {
		cfg.Split = bad
		if _, err := NewData(many, cfg); err == nil {
			t.Errorf("split %q is taken", bad)
		}
	}
}

// Files are divided as documents in memory, unless there is one to validate on and
// no split.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "a.txt"), filepath.Join(dir, "b.txt")
	for name, text := range map[string]string{path: strings.Repeat("héllo wörld\n", 200), other: "another text\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		files Files
		split string
		sizes [3]int
	}{
		{Files{Data: path}, "", [3]int{2160, 240, 0}},
		{Files{Data: path, Valid: other}, "", [3]int{2400, 13, 0}},
		{Files{Data: path, Valid: other}, "0.8,0.1,0.1", [3]int{1920, 13, 240}},
		{Files{Data: path, Test: other}, "0.8,0.1,0.1", [3]int{1920, 240, 13}},
	} {
		cfg := Defaults()
		cfg.Split = c.split
		d, err := Read(t.Context(), &c.files, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]int{characters(t, d.Training), characters(t, d.Validation), characters(t, d.Test)}; got != c.sizes {
			t.Errorf("%+v with split %q: %v characters, want %v", c.files, c.split, got, c.sizes)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, &Files{Data: path}, Defaults()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for _, line := range []int{80, 3 << 20} { // longer lines are cut between characters
		var b strings.Builder
		for b.Len() < 10<<20 {
			b.WriteString(strings.Repeat("ä", r.IntN(line)/2))
			b.WriteByte('\n')
		}
		text, joined, n := b.String(), "", 0
		for block := range blocks(text) {
			if len(block) > 4*blockSize || strings.ToValidUTF8(block, "?") != block {
				t.Fatalf("a block of %d bytes, or half a character", len(block))
			}
			joined += block
			n++
		}
		if joined != text || n < 3 {
			t.Errorf("lines of up to %d bytes: %d blocks are not the text", line, n)
		}
	}
}

func TestCutoffs(t *testing.T) {
	_, counts := zipf(200000, 20000)
	got := cutoffs(counts)
	if len(got) != 3 || !slices.IsSorted(got) {
		t.Fatalf("cutoffs %v", got)
	}
	below := shares(counts)
	if cost := clusterCost(below, got); cost > 0.2*20000 {
		t.Errorf("cutoffs %v look at %.0f classes a token", got, cost)
	}
	// By hand: 2 + 1 cluster; half of the tokens lie in it, which has 2 classes.
	if cost := clusterCost(shares([]int64{3, 2, 4, 1}), []int{2}); cost != 2+1+0.5*2 {
		t.Errorf("cost %v, want 4", cost)
	}
	if cutoffs(make([]int64, 999)) != nil {
		t.Error("a small vocabulary has cutoffs")
	}
}
