package carousel_test

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/internal/memory"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/forecast"
	"github.com/carousel-ml/carousel/task/translate"
)

// format1 are the tasks whose directories of format 1 are in testdata, each with a
// file to predict from and the answers of the program that wrote the model.
var format1 = []string{"forecast", "classify", "generate", "tag", "translate", "transcribe", "classify-audio"}

// nameToday is the name that a task of format 1 has now.
func nameToday(task string) string {
	if task == "classify-audio" {
		return "keywords"
	}
	return task
}

func openFormat1(t *testing.T, name string) *task.Trained {
	t.Helper()
	m, err := carousel.Open(filepath.Join("testdata", "format1", name, "model"))
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind.Name != nameToday(name) {
		t.Fatalf("the model of %s is for %s", name, m.Kind.Name)
	}
	return m
}

// saveFormat1 saves a model of format 1 as one of the present format.
func saveFormat1(t *testing.T, task, dir string) {
	t.Helper()
	if err := openFormat1(t, task).Save(dir); err != nil {
		t.Fatal(err)
	}
}

// TestFormat1 wants models of the older format, and what is saved of them, to answer
// as they did.
func TestFormat1(t *testing.T) {
	for _, name := range format1 {
		t.Run(name, func(t *testing.T) {
			at := filepath.Join("testdata", "format1", name)
			want, err := os.ReadFile(filepath.Join(at, "out.csv"))
			if err != nil {
				t.Fatal(err)
			}
			in, err := filepath.Glob(filepath.Join(at, "in.*"))
			if err != nil || len(in) != 1 {
				t.Fatal(in, err)
			}
			dir := filepath.Join(t.TempDir(), "again")
			saveFormat1(t, name, dir)
			again, err := carousel.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range []*task.Trained{openFormat1(t, name), again} {
				found, err := m.Predict(t.Context(), task.Input{File: in[0]}, nil)
				if err != nil {
					t.Fatal(err)
				}
				compareTables(t, tableOf(t, found), string(want))
			}
		})
	}
}

// tableOf is a prediction as the table that format 1 has of it. Translations are
// written as lines now, without their scores, and forecasts in the table's columns.
func tableOf(t *testing.T, p task.Prediction) string {
	t.Helper()
	var text bytes.Buffer
	err := p.Write(&text)
	if f, ok := p.(*forecast.Forecast); ok {
		text.Reset()
		rows := [][]string{{"time", "series", "target", "forecast", "q0.1", "q0.5", "q0.9"}}
		for _, s := range f.Series {
			for h, y := range s.Point {
				row := []string{s.Time[h].Format(time.RFC3339), s.ID, s.Target, fmt.Sprint(y)}
				for i := range f.Levels {
					row = append(row, fmt.Sprint(s.Quantiles[i][h]))
				}
				rows = append(rows, row)
			}
		}
		err = csv.NewWriter(&text).WriteAll(rows)
	}
	if lines, ok := p.(*translate.Translations); ok {
		text.Reset()
		rows := [][]string{{"source", "translation", "score"}}
		for _, one := range lines.List {
			rows = append(rows, []string{one.Source, one.Text, strconv.FormatFloat(one.Score, 'f', 4, 64)})
		}
		err = csv.NewWriter(&text).WriteAll(rows)
	}
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// compareTables allows numbers the difference between two processors' rounding. The
// first column of tables on sound is a path.
func compareTables(t *testing.T, got, want string) {
	t.Helper()
	read := func(s string) [][]string {
		rows, err := csv.NewReader(strings.NewReader(s)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	g, w := read(got), read(want)
	if len(g) != len(w) || len(w) < 2 {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	for k, name := range w[0] {
		at := slices.Index(g[0], name) // there may be more columns now
		if at < 0 {
			t.Fatalf("no column %s in\n%s", name, got)
		}
		for i := range w {
			a, errA := strconv.ParseFloat(g[i][at], 64)
			b, errB := strconv.ParseFloat(w[i][k], 64)
			switch {
			case errA == nil && errB == nil && math.Abs(a-b) <= 2e-4*(1+math.Abs(b)):
			case name == "audio" && filepath.Base(g[i][at]) == filepath.Base(w[i][k]):
			case g[i][at] != w[i][k]:
				t.Errorf("row %d, column %s: got %q, want %q", i, name, g[i][at], w[i][k])
			}
		}
	}
}

// TestOpenDirReadsNothing wants a task to be content with what model.Open read.
func TestOpenDirReadsNothing(t *testing.T) {
	for _, name := range format1 {
		dir := filepath.Join(t.TempDir(), "model")
		saveFormat1(t, name, dir)
		d, err := model.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(carousel.Tasks, func(k *task.Kind) bool { return k.Is(d) })
		if i < 0 {
			t.Fatalf("no task is %s", d.Task)
		}
		if _, err := carousel.Tasks[i].Open(d); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDirectoryIsWhole changes, cuts, lengthens, removes and swaps each file of each
// task's directory. Opening it must name that file.
func TestDirectoryIsWhole(t *testing.T) {
	for _, task := range append(format1, memory.Task) {
		t.Run(task, func(t *testing.T) {
			root := t.TempDir()
			dir, other := filepath.Join(root, "model"), filepath.Join(root, "other")
			open := func() error { _, err := carousel.Open(dir); return err }
			if task == memory.Task {
				open = func() error { _, err := memory.Open(dir); return err }
				m, err := memory.New(memory.DefaultTrial().Config)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Save(dir); err != nil {
					t.Fatal(err)
				}
			} else {
				saveFormat1(t, task, dir)
			}
			if err := open(); err != nil {
				t.Fatal(err)
			}
			saveAnother(t, dir, other)
			d, err := model.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range append(d.Names(), model.ConfigFile) {
				path := filepath.Join(dir, filepath.FromSlash(name))
				whole, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				swapped, err := os.ReadFile(filepath.Join(other, filepath.FromSlash(name)))
				if err != nil || bytes.Equal(swapped, whole) {
					t.Fatalf("%s: the other save has the same (%v)", name, err)
				}
				damages := map[string][]byte{"cut": whole[:len(whole)-1], "emptied": {}, "longer": append(bytes.Clone(whole), '\n'), "of another save": swapped, "removed": nil}
				for _, at := range []int{0, 1, len(whole) / 3, len(whole) / 2, len(whole) - 2, len(whole) - 1} {
					b := bytes.Clone(whole)
					b[at] ^= 4
					damages["changed at "+strconv.Itoa(at)] = b
				}
				for what, b := range damages {
					where := path
					if b != nil {
						err = os.WriteFile(path, b, 0o600)
					} else if err = os.Remove(path); name == model.ConfigFile {
						where = dir
					}
					if err != nil {
						t.Fatal(err)
					}
					err := open()
					var file *model.FileError
					if name == model.ConfigFile && what == "of another save" { // then the others are
						where = filepath.Join(dir, filepath.FromSlash(d.Names()[0]))
					}
					if !errors.As(err, &file) || file.File != where || strings.Contains(err.Error(), "\n") || file.Fix == "" && name != model.ConfigFile {
						t.Errorf("%s %s: got %v, want one line that names %s", name, what, err, where)
					}
				}
				if err := os.WriteFile(path, whole, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := open(); err != nil {
				t.Errorf("put right again: %v", err)
			}
		})
	}
}

// saveAnother saves the model in dir to another directory with other bytes in each file.
func saveAnother(t *testing.T, dir, to string) {
	t.Helper()
	d, err := model.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	d.Weights.Tensors[0].Data[0]++
	parts := []model.Part{model.Tensors(model.WeightsFile, d.Weights.Tensors, d.Weights.Meta)}
	for _, name := range d.Names() {
		if name != model.WeightsFile {
			content, err := d.Read(name)
			if err != nil {
				t.Fatal(err)
			}
			content = append(bytes.Clone(content), '\n')
			content[len(content)/2]++
			parts = append(parts, model.Part{Name: name, Write: func(w io.Writer) error {
				_, err := w.Write(content)
				return err
			}})
		}
	}
	if err := model.Save(to, d.Task, d.Config, parts...); err != nil {
		t.Fatal(err)
	}
}

// TestEveryByteOfConfig changes config.json of one task at every byte (with -short
// at the digits and every 7th byte): a digit to each other one, the rest by each bit.
func TestEveryByteOfConfig(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "model")
	saveFormat1(t, "tag", dir)
	path := filepath.Join(dir, model.ConfigFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(at int, to byte) {
		b := bytes.Clone(whole)
		b[at] = to
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var file *model.FileError
		if _, err := model.Open(dir); !errors.As(err, &file) || file.File != path || strings.Contains(err.Error(), "\n") {
			t.Errorf("byte %d, %q in place of %q: got %v, want one line that names %s", at, to, whole[at], err, path)
		}
	}
	for at, was := range whole {
		if was >= '0' && was <= '9' {
			for to := byte('0'); to <= '9'; to++ {
				if to != was {
					refused(at, to)
				}
			}
		} else if at%7 == 0 || !testing.Short() {
			for bit := range 8 {
				refused(at, was^1<<bit)
			}
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := model.Open(dir); err != nil {
		t.Errorf("put right again: %v", err)
	}
}
