package speech

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/speech/speechtest"
	"github.com/carousel-ml/carousel/task"
)

func TestDeltas(t *testing.T) {
	cs, err := golden.Load("deltas")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		x, want := c.Tensor("x"), c.Tensor("y").Data
		d := deltas{width: x.Dims[1], order: 2}
		got := d.run(nil, x.Data, true)
		pieces := deltas{width: x.Dims[1], order: 2}
		var slow []float32
		for f := range slices.Chunk(x.Data, x.Dims[1]) {
			slow = pieces.run(slow, f, false)
		}
		slow = pieces.run(slow, nil, true)
		if len(got) != len(want) || !slices.Equal(got, slow) {
			t.Fatalf("%s: %d numbers, %d in pieces, want %d", c.Name, len(got), len(slow), len(want))
		}
		for i := range got {
			if math.Abs(float64(got[i]-want[i])) > 1e-5 {
				t.Fatalf("%s: number %d is %v, want %v", c.Name, i, got[i], want[i])
			}
		}
	}
}

func TestFrontendInPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	frames := make([]float32, 37*3)
	for i := range frames {
		frames[i] = float32(r.NormFloat64())
	}
	c := DefaultSetup()
	c.Deltas, c.Normalize = 2, "running"
	stats := &Statistics{Mean: make([]float64, 9), Deviation: make([]float64, 9)}
	for i := range stats.Deviation {
		stats.Deviation[i] = 1
	}
	for _, c.Stack = range []int{1, 3, 4} {
		for _, c.StackStride = range []int{0, 1, 2} {
			if c.StackStride > c.Stack {
				continue
			}
			want := (&Frontend{3, stats, &c}).Steps(frames)
			if got := len(want) / (9 * c.Stack); got != c.steps(37) {
				t.Fatalf("stack %d skip %d: %d steps, want %d", c.Stack, c.StackStride, got, c.steps(37))
			}
			f := (&Frontend{3, stats, &c}).Pipeline()
			var got []float32
			for k := 0; k < 37; k += 5 {
				got = f.Write(got, frames[k*3:min(k+5, 37)*3])
			}
			if got = f.Flush(got); !slices.Equal(got, want) {
				t.Errorf("stack %d skip %d: pieces differ from the whole", c.Stack, c.StackStride)
			}
		}
	}
}

func TestAugmentationIsDrawnFromTheSample(t *testing.T) {
	dir := t.TempDir()
	cfg := DefaultSetup()
	cfg.Bands, cfg.Stack, cfg.Deltas, cfg.Speed, cfg.Gain, cfg.Noise = 20, 2, 1, 0.05, 6, 20
	cfg.FillDefaults()
	files := &Files{Data: speechtest.Manifest(t, dir, []string{"ab", "cd"}), Cache: filepath.Join(dir, "cache")}
	read := func(*Utterance) error { return nil }
	cfg.Holdout = 0
	d, err := Read(t.Context(), files, &cfg, "text", read)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := d.Prepare(t.Context(), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.Labels = [][]int32{{1}, {2}}
	load := func(sample int) []float32 {
		b := &Batch{}
		if err := c.Load(b, []int{sample}, true); err != nil {
			t.Fatal(err)
		}
		return b.X
	}
	if !slices.Equal(load(0), load(0)) {
		t.Error("the same sample twice differs")
	}
	if slices.Equal(load(0), load(2)) {
		t.Error("another epoch's sample is the same")
	}
	// What the cache gives back is what was computed.
	kept, err := c.framesOf(1)
	if err != nil || len(d.features.kept) != 2 {
		t.Fatal(len(d.features.kept), err)
	}
	forget := func() { d.features.kept, d.features.total = nil, 0 }
	forget()
	again, err := c.framesOf(1)
	if err != nil || !slices.Equal(kept, again) {
		t.Errorf("from the cache: %v", err)
	}
	found, _ := filepath.Glob(filepath.Join(dir, "cache", "*.features"))
	if len(found) != 2 {
		t.Fatalf("%d cached files", len(found))
	}
	for _, f := range found {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b[40] ^= 1
		if err := os.WriteFile(f, b, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, ok := readCache(f, c.Width); ok {
			t.Error("damage in the cache is not seen")
		}
	}
	forget()
	if again, err = c.framesOf(1); err != nil || !slices.Equal(kept, again) {
		t.Errorf("after damage: %v", err)
	}
}

// What one training leaves out is there for the next, and features are kept once.
func TestDataIsReusable(t *testing.T) {
	dir := t.TempDir()
	cfg := DefaultSetup()
	cfg.FillDefaults()
	cfg.Holdout = 0.5
	d, err := Read(t.Context(), &Files{Data: speechtest.Manifest(t, dir, []string{"ab", "cd", "d", "a"})}, &cfg, "text", func(*Utterance) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c := cfg
		learn, valid, err := d.Prepare(t.Context(), &c)
		if err != nil {
			t.Fatal(err)
		}
		if len(learn.List) != 2 || len(valid.List) != 2 || len(d.features.kept) != 4 || c.Rate != 8000 || cfg.Rate != 0 {
			t.Fatalf("%d to learn from, %d to validate on, %d kept, rate %d", len(learn.List), len(valid.List), len(d.features.kept), c.Rate)
		}
		learn.Keep(func(int) bool { return false })
	}
}

// Scoring reads what the part needs of a manifest.
func TestForPart(t *testing.T) {
	for _, c := range []struct {
		part task.Part
		in   Setup
		want Setup
		err  string
	}{
		{task.All, Setup{SplitColumn: "part", Speaker: "who", Holdout: 0.1}, Setup{}, ""},
		{task.Test, Setup{SplitColumn: "part", Speaker: "who", Holdout: 0.1}, Setup{SplitColumn: "part", Holdout: 0.1}, ""},
		{task.Validation, Setup{Speaker: "who", Holdout: 0.1}, Setup{Speaker: "who", Holdout: 0.1}, ""},
		{task.Test, Setup{Speaker: "who"}, Setup{Speaker: "who"}, "without a column of parts"},
	} {
		got := c.in
		err := got.ForPart(c.part)
		if !reflect.DeepEqual(got, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %+v, %v", c.part, got, err)
		}
	}
}

func TestCacheIsAFile(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := DefaultSetup()
	cfg.FillDefaults()
	cfg.Holdout = 0
	for _, cache := range []string{junk, filepath.Join(junk, "below", "it")} {
		files := &Files{Data: speechtest.Manifest(t, dir, []string{"ab", "cd"}), Cache: cache}
		d, err := Read(t.Context(), files, &cfg, "text", func(*Utterance) error { return nil })
		if err == nil {
			_, _, err = d.Prepare(t.Context(), &cfg)
		}
		var e *data.InputError
		if !errors.As(err, &e) || e.File != junk || !strings.Contains(e.Problem, "want a directory") {
			t.Errorf("--cache %s: got %v", cache, err)
		}
	}
	if b, err := os.ReadFile(junk); string(b) != "x" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}
