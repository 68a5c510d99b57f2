package generate

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/train"
)

// holding sets how much text is held in memory during a test.
func holding(t testing.TB, bytes int64) {
	before := inMemory
	inMemory = bytes
	t.Cleanup(func() { inMemory = before })
}

// prose is about n bytes of made-up text, with words that come once.
func prose(n int, seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 1))
	var b strings.Builder
	for b.Len() < n {
		for range 3 + r.IntN(12) {
			fmt.Fprintf(&b, "%s ", []string{"über", "the", "cat", "sat", "<s>", "on", "a", "mat", "<unk>", "naïve"}[r.IntN(10)])
		}
		if r.IntN(20) == 0 {
			fmt.Fprintf(&b, "%x", r.Uint64())
		}
		b.WriteString("\n"[:min(1, r.IntN(9))])
	}
	return b.String()
}

// shelf writes files of every kind that is read: plain, in gzip, in Latin-1, with CRLF, CR
// and a byte order mark.
func shelf(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write([]byte(prose(9000, 1)))
	z.Close()
	latin := strings.NewReplacer("ü", "\xfc", "ï", "\xef").Replace(prose(7000, 2))
	for name, text := range map[string]string{
		"a.txt": prose(20000, 3), "b.txt.gz": zipped.String(), "c.txt": latin, "d.txt": "\xef\xbb\xbf" + prose(5000, 4),
		"e.txt": strings.ReplaceAll(prose(6000, 5), "\n", "\r\n"), "f.txt": strings.ReplaceAll(prose(4000, 6), "\n", "\r"), "g.txt": "short\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Texts that stay in their files make the model and the scores that texts in memory make,
// bit for bit, and leave nothing behind.
func TestTextsInFiles(t *testing.T) {
	dir := shelf(t)
	for _, unit := range units {
		cfg := small(unit)
		cfg.Split, cfg.Epochs = "0.7,0.2,0.1", 1
		if unit == "bpe" {
			cfg.VocabularySize = 300
		}
		type outcome struct {
			weights []float32
			history []train.Record
			memory  *task.Memory
			scores  *Evaluation
			after   *Evaluation
			tally   [][]float64
		}
		run := func(held int64) (o outcome) {
			t.Helper()
			holding(t, held)
			out := t.TempDir()
			t.Setenv("TMPDIR", t.TempDir())
			d, err := Read(t.Context(), &Files{Data: dir}, cfg)
			if err != nil {
				t.Fatal(err)
			}
			in := 0
			for _, doc := range d.Of(task.All) {
				if doc.Stays() {
					in++
				}
			}
			if held == 0 && in != 7 || held == 25000 && (in == 0 || in == 7) || held > 1e6 && in > 0 {
				t.Errorf("%d of 7 texts stay in their files, with %d bytes in memory", in, held)
			}
			m, r := trainedOn(t, d, cfg, &train.Run{Dir: out})
			o.weights, o.history, o.memory = weights(m), history(r), &m.Memory
			if err := m.Recognise(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			if o.scores, err = m.Evaluate(t.Context(), d, task.Test, nil); err != nil {
				t.Fatal(err)
			}
			all, err := Read(t.Context(), &Files{Data: filepath.Join(dir, "a.txt")}, cfg)
			if err == nil {
				err = all.Recognise(t.Context(), &m.Memory)
			}
			if err == nil {
				o.after, err = m.Evaluate(t.Context(), all, task.Validation, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			tally, err := m.Tally(t.Context(), all, task.All, nil)
			if err != nil {
				t.Fatal(err)
			}
			o.tally = tally.Rows
			if _, err := os.Stat(filepath.Join(out, "tokens")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("tokens are left: %v", err)
			}
			if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) > 0 {
				t.Errorf("temporary files are left: %v", left)
			}
			return o
		}
		want := run(1 << 30)
		for _, held := range []int64{0, 25000} {
			if got := run(held); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: with %d bytes in memory: %+v, want %+v", unit, held, got, want)
			}
		}
	}
}

// Trainings on the same data with the same settings of tokens encode them once.
func TestTextsAreEncodedOnce(t *testing.T) {
	cfg := small("bpe")
	cfg.VocabularySize = 300
	d := both(docs(story), docs(story[:300]))
	encode := func(change func(*Config)) *encoded {
		t.Helper()
		own := cfg
		change(&own)
		e, err := d.encode(t.Context(), &own, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	first := encode(func(*Config) {})
	if encode(func(c *Config) { c.LR, c.Hidden, c.Seed = 1, 8, 7 }) != first {
		t.Error("another rate encodes again")
	}
	for _, change := range []func(*Config){func(c *Config) { c.VocabularySize = 290 }, func(c *Config) { c.Tokens = "char" }, func(c *Config) { c.MinCount = 3 }} {
		if encode(change) == first {
			t.Error("other tokens are those of before")
		}
	}
	if err := d.Recognise(t.Context(), &task.Memory{}); err != nil {
		t.Fatal(err)
	}
	if d.Training = docs(story[:500]); encode(func(*Config) {}) == first {
		t.Error("texts that were divided anew are those of before")
	}
}

// Ranks of a machine share a file of tokens, and one that has no directory of the run
// leaves none.
func TestRanksOfTextsInFiles(t *testing.T) {
	dir := shelf(t)
	cfg := small("char")
	cfg.Accumulate = 2
	read := func() *Data {
		d, err := Read(t.Context(), &Files{Data: dir}, cfg)
		if err != nil {
			t.Error(err)
		}
		return d
	}
	want, _ := trainedOn(t, read(), cfg, nil)
	holding(t, 0)
	cfg.Accumulate = 1
	out := filepath.Join(t.TempDir(), "run")
	if got, _ := onRanks(t, 2, read, cfg, train.Run{Dir: out}); !slices.Equal(weights(got), weights(want)) {
		t.Error("other weights than those of texts in memory")
	}
	if _, err := os.Stat(filepath.Join(out, "tokens")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("tokens are left: %v", err)
	}
}

// An interrupted run keeps its tokens, and its resumption takes them, unless they are
// damaged.
func TestTokensAreKept(t *testing.T) {
	dir := shelf(t)
	cfg := small("char")
	want, _ := trainedOn(t, readAll(t, dir, cfg), cfg, nil)
	holding(t, 0)
	for name, c := range map[string]struct {
		damage func(string) error
		again  bool
	}{
		"whole":          {func(string) error { return nil }, true},
		"cut short":      {func(path string) error { return os.Truncate(path, 1000) }, false},
		"empty":          {func(path string) error { return os.Truncate(path, 0) }, false},
		"altered tokens": {func(path string) error { return alter(path, 500) }, false},
		"altered counts": {func(path string) error { return alter(path, -100) }, false},
	} {
		out := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		_, r, err := Train(ctx, readAll(t, dir, cfg), cfg, &train.Run{Dir: out, Hooks: train.Hooks{OnStep: func(s train.Step) error {
			if s.Step == 20 {
				cancel()
			}
			return nil
		}}})
		if err != nil || !r.Interrupted {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		files, err := filepath.Glob(filepath.Join(out, "tokens", "*.tokens"))
		if err != nil || len(files) != 2 {
			t.Fatalf("%s: files of tokens: %v, %v", name, files, err)
		}
		var before []fs.FileInfo
		for _, file := range files {
			if err := c.damage(file); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			before = append(before, info)
		}
		m, _ := trainedOn(t, readAll(t, dir, cfg), cfg, &train.Run{Dir: out, Resume: true, Hooks: train.Hooks{OnStart: func(train.Plan) error {
			for i, file := range files {
				if now, err := os.Stat(file); err != nil || os.SameFile(before[i], now) != c.again {
					t.Errorf("%s: taken again: %v, want %v (%v)", name, !c.again, c.again, err)
				}
			}
			return nil
		}}})
		if !slices.Equal(weights(m), weights(want)) {
			t.Errorf("%s: a resumed run has other weights", name)
		}
		if _, err := os.Stat(filepath.Join(out, "tokens")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: tokens are left: %v", name, err)
		}
	}
}

// alter changes a byte of a file, counted from the end if it is negative.
func alter(path string, at int) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text[(at+len(text))%len(text)] ^= 1
	return os.WriteFile(path, text, 0o666)
}

func readAll(t *testing.T, path string, cfg Config) *Data {
	t.Helper()
	d, err := Read(t.Context(), &Files{Data: path}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A file that changes while it is in use is refused by name, and so is a disk that fails in
// the middle of a training.
func TestTextsThatChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write(prose(20000, 1))
	holding(t, 0)
	cfg := small("char")
	d := readAll(t, path, cfg)
	write(prose(30000, 1))
	var bad *data.InputError
	if _, _, err := Train(t.Context(), d, cfg, nil); !errors.As(err, &bad) || bad.File != path || !strings.Contains(err.Error(), "has changed") {
		t.Error(err)
	}
	out := t.TempDir()
	run := &train.Run{Dir: out, Hooks: train.Hooks{OnStart: func(train.Plan) error {
		files, err := filepath.Glob(filepath.Join(out, "tokens", "*.tokens"))
		for _, file := range files {
			err = errors.Join(err, os.Truncate(file, 0))
		}
		return err
	}}}
	if _, _, err := Train(t.Context(), readAll(t, path, cfg), cfg, run); err == nil || !strings.Contains(err.Error(), "the tokens of the text cannot be read") {
		t.Error(err)
	}
}

// What is held of a text in a file does not grow with it: neither when it is divided and
// encoded, nor when it is remembered and recognised.
func TestTextsInBoundedMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.txt")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	const size = 48 << 20
	line := strings.Repeat("a text that is longer than memory is read in parts ", 3) + "\n"
	for at := 0; at < size; at += 100 * len(line) {
		if _, err := f.WriteString(strings.Repeat(line, 100)); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	holding(t, 1<<20)
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	var now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&now)
	before, most := now.HeapAlloc, uint64(0)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-stop:
				return
			case <-tick.C:
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapAlloc)
			}
		}
	}()
	cfg := small("space")
	d := readAll(t, path, cfg)
	e, err := d.encode(t.Context(), &cfg, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer e.close(false)
	var memory task.Memory
	d.Remember(&memory)
	if err := d.Recognise(t.Context(), &memory); err != nil {
		t.Fatal(err)
	}
	close(stop)
	<-stopped
	if n := e.training.Characters + e.validation.Characters; n < size || !d.Has(task.Validation) || d.Training[0].Size() != int64(e.training.Characters) {
		t.Errorf("%d of %d characters; recognised as training: %d of %d", n, size, d.Training[0].Size(), e.training.Characters)
	}
	if most -= before; most > size*2/3 { // some 24 MB are blocks, their tokens and the hashes of lines
		t.Errorf("%d bytes were held for a text of %d", most, size)
	}
}
