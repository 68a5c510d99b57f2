package model

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// example is the model A or B: A has a file that B lacks, B has a folder that A lacks,
// and all else differs.
func example(which string) []Part {
	fill := func(n int, v float32) []float32 { return slices.Repeat([]float32{v}, n) }
	if which == "A" {
		return []Part{Tensors(WeightsFile, []Tensor{{Name: "w", Dims: []int{40_000}, Data: fill(40_000, 1)}}, nil),
			{"tokenizer.json", put("A")}, {"vocabulary.json", put("only A")}, Tensors("linear.safetensors", []Tensor{{Name: "l", Dims: []int{1}, Data: fill(1, 2)}}, nil)}
	}
	return []Part{Tensors(WeightsFile, []Tensor{{Name: "w", Dims: []int{30_000}, Data: fill(30_000, 3)}}, nil),
		{"tokenizer.json", put("B")}, {"source/tokenizer.json", put("only B")}, Tensors("linear.safetensors", []Tensor{{Name: "l", Dims: []int{1}, Data: fill(1, 4)}}, nil)}
}

func saveExample(dir, which string) error { return Save(dir, "test", which, example(which)...) }

// whole wants dir to open as A or B, each file the one that was saved, and says which.
func whole(t *testing.T, dir string) string {
	t.Helper()
	d, err := Open(dir)
	if err != nil {
		t.Fatalf("neither the older nor the newer model: %v", err)
	}
	var which string
	if err := d.Decode(&which); err != nil {
		t.Fatal(err)
	}
	parts := example(which)
	if names := d.Names(); len(names) != len(parts) {
		t.Fatalf("%s has the files %v", which, names)
	}
	for _, p := range parts {
		var want, got bytes.Buffer
		if err := p.Write(&want); err != nil {
			t.Fatal(err)
		}
		if p.Name == WeightsFile {
			err = encode(&got, d.Weights.Tensors, d.Weights.Meta)
		} else {
			var text []byte
			text, err = d.Read(p.Name)
			got.Write(text)
		}
		if err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Fatalf("%s: %s is not the one that was saved (%v)", which, p.Name, err)
		}
	}
	return which
}

// tidy wants dir to hold the files of a model under their plain names and nothing else
// but notes.txt, which is not the model's.
func tidy(t *testing.T, dir, which string) {
	t.Helper()
	want := []string{ConfigFile, "notes.txt"}
	for _, p := range example(which) {
		want = append(want, p.Name)
	}
	slices.Sort(want)
	var got []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if name, _ := filepath.Rel(dir, path); name != "." && name != "source" {
			got = append(got, filepath.ToSlash(name))
		}
		return err
	})
	slices.Sort(got)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("the directory of %s holds %v, want %v (%v)", which, got, want, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "source")); which == "A" && err == nil {
		t.Fatal("an empty folder is left behind")
	}
}

// withNotes is an empty directory but for notes.txt, in memory where the system has a
// place for that: it is processes that are killed here, not the machine.
func withNotes(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "carousel-test-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

const (
	killDir  = "CAROUSEL_TEST_KILL_DIR"
	killStep = "CAROUSEL_TEST_KILL_STEP" // 0: none, save until killed from outside
	killSave = "CAROUSEL_TEST_KILL_SAVE"
)

// TestMain makes the process that is killed of this test's own.
func TestMain(m *testing.M) {
	dir := os.Getenv(killDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	at, _ := strconv.Atoi(os.Getenv(killStep))
	n := 0
	step = func() {
		if n++; n == at {
			self, _ := os.FindProcess(os.Getpid())
			_ = self.Kill()
			select {} // until the signal is here
		}
	}
	for which := os.Getenv(killSave); ; which = string('A' + 'B' - which[0]) {
		if err := saveExample(dir, which); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if at > 0 {
			os.Exit(0)
		}
	}
}

// saver is another process that saves which into dir, and is killed at a step.
func saver(t *testing.T, dir, which string, at int) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Skip(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), killDir+"="+dir, killSave+"="+which, fmt.Sprintf("%s=%d", killStep, at))
	c.Stdout = os.Stderr
	if err := c.Start(); err != nil {
		t.Skip("no process can be started here: ", err)
	}
	return c
}

// TestKilledAtEveryStep kills a save over an older model before each change to the
// disk. The directory must be the older model before the rename of config.json, and
// the newer one after it.
func TestKilledAtEveryStep(t *testing.T) {
	kills := 0
	for _, names := range []string{"AB", "BA", "AA"} {
		older, newer := names[:1], names[1:]
		committed := false
		for at := 1; ; at++ {
			dir := withNotes(t)
			if err := saveExample(dir, older); err != nil {
				t.Fatal(err)
			}
			if err := saver(t, dir, newer, at).Wait(); err == nil {
				if whole(t, dir) != newer {
					t.Fatalf("%s: a save that ended is not there", names)
				}
				tidy(t, dir, newer)
				break
			}
			kills++
			found := whole(t, dir)
			if committed = committed || found == newer; committed && found != newer {
				t.Fatalf("%s: the newer model is there at step %d, and the older one at step %d", names, at-1, at)
			}
			// Whatever comes next, and wherever the kill fell, is not in its way.
			next := string('A' + byte(at)%2)
			if err := saveExample(dir, next); err != nil {
				t.Fatal(err)
			}
			if whole(t, dir) != next {
				t.Fatalf("%s, step %d: another model than was saved last", names, at)
			}
			tidy(t, dir, next)
		}
		if !committed {
			t.Errorf("%s: no kill came after the commit", names)
		}
	}
	if kills < 60 {
		t.Errorf("only %d kills", kills)
	}
}

// TestKilledAgainAndAgain kills saves over what killed saves left, at random steps
// and at random times.
func TestKilledAgainAndAgain(t *testing.T) {
	const times = 140
	dir := withNotes(t)
	if err := saveExample(dir, "A"); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	found := map[string]int{}
	for i := range times {
		which := string('A' + byte(r.IntN(2)))
		if i%2 == 0 {
			_ = saver(t, dir, which, 1+r.IntN(50)).Wait()
		} else {
			c := saver(t, dir, which, 0)
			time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		found[whole(t, dir)]++
	}
	if found["A"] < times/8 || found["B"] < times/8 {
		t.Errorf("the models found are %v: the saves do not get far enough", found)
	}
	if err := saveExample(dir, "B"); err != nil {
		t.Fatal(err)
	}
	whole(t, dir)
	tidy(t, dir, "B")
}

// TestReadWhileSaving opens in a loop while another saves.
func TestReadWhileSaving(t *testing.T) {
	dir := withNotes(t)
	if err := saveExample(dir, "A"); err != nil {
		t.Fatal(err)
	}
	var done atomic.Bool
	saved := make(chan error, 1)
	go func() {
		defer done.Store(true)
		for i := range 100 {
			if err := saveExample(dir, string('A'+byte(i)%2)); err != nil {
				saved <- err
				return
			}
		}
		saved <- nil
	}()
	found := map[string]int{}
	for !done.Load() {
		found[whole(t, dir)]++
	}
	if err := <-saved; err != nil {
		t.Fatal(err)
	}
	if found["A"] == 0 || found["B"] == 0 {
		t.Errorf("the reader saw %v, not both models", found)
	}
	whole(t, dir)
	tidy(t, dir, "B")
}

func TestSecondWriter(t *testing.T) {
	dir := withNotes(t)
	if err := saveExample(dir, "A"); err != nil {
		t.Fatal(err)
	}
	inside, goOn, saved := make(chan bool), make(chan bool), make(chan error)
	parts := append(example("B"), Part{"slow.txt", func(io.Writer) error {
		close(inside)
		<-goOn
		return errors.New("given up")
	}})
	go func() { saved <- Save(dir, "test", "B", parts...) }()
	<-inside
	if err := saveExample(dir, "B"); !errors.Is(err, ErrSaving) {
		t.Errorf("a second writer in this process: %v", err)
	}
	if err := saver(t, dir, "B", 1000).Wait(); err == nil {
		t.Error("a second writer in another process is not refused")
	}
	if whole(t, dir) != "A" {
		t.Error("the refused writer wrote")
	}
	close(goOn)
	if err := <-saved; err == nil {
		t.Error("a part that fails is saved")
	}
	tidy(t, dir, "A")
	if err := saveExample(dir, "B"); err != nil {
		t.Errorf("after the first writer ended: %v", err)
	}
	tidy(t, dir, "B")
}

// TestStaleLock: what a killed writer leaves, and a file that only looks like it.
func TestStaleLock(t *testing.T) {
	dir := withNotes(t)
	if err := os.WriteFile(filepath.Join(dir, lockFile), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := saveExample(dir, "A"); err != nil {
		t.Fatal(err)
	}
	tidy(t, dir, "A")
}

func TestSaveRefusesNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../x", "/x", "a/../x", ConfigFile, WeightsFile, dropsFile, lockFile, "saving/x", "saving-0123456789ab"} {
		dir := filepath.Join(t.TempDir(), "m")
		if err := Save(dir, "test", 1, example("A")[0], Part{name, put("x")}); err == nil {
			t.Errorf("a part named %q is saved", name)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%q was refused after something was written", name)
		}
	}
	if err := Save(t.TempDir(), "test", 1, Part{"x", put("x")}); err == nil {
		t.Error("a model without weights is saved")
	}
}

// TestCopy wants the copy of a file that was opened, and no other that took its place.
func TestCopy(t *testing.T) {
	dir, to := withNotes(t), withNotes(t)
	if err := saveExample(dir, "A"); err != nil {
		t.Fatal(err)
	}
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var parts []Part
	for _, name := range d.Names() {
		parts = append(parts, d.Copy(name))
	}
	if err := Save(to, "test", "A", parts...); err != nil {
		t.Fatal(err)
	}
	whole(t, to)
	tidy(t, to, "A")
	if err := Save(dir, "test", "A", parts...); err != nil {
		t.Fatalf("onto itself: %v", err)
	}
	if err := saveExample(dir, "B"); err != nil {
		t.Fatal(err)
	}
	var fe *FileError
	if err := Save(to, "test", "A", parts...); !errors.As(err, &fe) {
		t.Errorf("files of another save are copied: %v", err)
	}
	whole(t, to)
}
