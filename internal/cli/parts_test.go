package cli

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/internal/par"
)

// sampled is a task whose files are a head and then samples.
type sampled struct {
	task, ext, head string
	sample          func(r *rand.Rand, i int) string
	settings        string
}

var sampledTasks = []sampled{
	{"classify", ".csv", "text,label\n", func(r *rand.Rand, i int) string {
		label := i % 2
		return fmt.Sprintf("\"%s %s %d\",%d\n", []string{"a fine", "a dull"}[label], []string{"film", "book", "song"}[r.IntN(3)], i, label)
	}, "--hidden 4 --embedding 4 --min-count 1"},
	{"tag", ".conll", "", func(r *rand.Rand, i int) string {
		return fmt.Sprintf("%s B-PER\nsees O\n%d O\nParis B-LOC\n\n", []string{"Ada", "Alan", "Grace"}[r.IntN(3)], i)
	}, "--hidden 4 --embedding 4 --char-hidden 2 --min-count 1"},
	{"translate", ".tsv", "source\ttarget\n", func(r *rand.Rand, i int) string {
		word := []string{"ab", "ba", "bb"}[r.IntN(3)]
		return fmt.Sprintf("%s %d\t%s %d\n", word, i, strings.ToUpper(word), i)
	}, "--tokens space --min-count 1 --hidden 4 --embedding 4 --warmup 0.5"},
	{"keywords", ".csv", "audio,label\n", func(r *rand.Rand, i int) string {
		return fmt.Sprintf("%s,%d\n", sound(r, i), i%2)
	}, "--hidden 4 --layers 1 --bands 12"},
	{"transcribe", ".csv", "audio,text\n", func(r *rand.Rand, i int) string {
		return fmt.Sprintf("%s,%s\n", sound(r, i), []string{"ab", "ba", "b a"}[r.IntN(3)])
	}, "--hidden 4 --layers 1 --bands 12"},
}

// sound writes a sound and returns its name.
func sound(r *rand.Rand, i int) string {
	name := fmt.Sprintf("%d.wav", i)
	letters := make([]byte, 2+i%3)
	for k := range letters {
		letters[k] = 'a' + byte(r.IntN(4))
	}
	text := tones(string(letters) + string(rune('e'+i%20))) // no two are alike
	if err := os.WriteFile(name, text, 0o600); err != nil {
		panic(err)
	}
	return name
}

// scores are the keys of an evaluation that these tests look at.
type scores struct {
	Part    string         `json:"part"`
	Rows    int            `json:"rows_scored"`
	LeftOut int            `json:"rows_left_out"`
	Metrics map[string]any `json:"metrics"`
}

// trained and evaluated run a command and return the scores that it prints.
func trained(t *testing.T, line string) scores {
	t.Helper()
	var v struct{ Evaluation scores }
	decodeRun(t, line, &v)
	return v.Evaluation
}

func evaluated(t *testing.T, line string) (v scores) {
	t.Helper()
	decodeRun(t, line, &v)
	return v
}

func decodeRun(t *testing.T, line string, v any) {
	t.Helper()
	var out, log bytes.Buffer
	if code := run(t.Context(), append(strings.Fields(line), "--json", "--quiet"), strings.NewReader(""), &out, &log); code != exitOK {
		t.Fatalf("%s: exit code %d\n%s", line, code, &log)
	}
	if err := json.Unmarshal(out.Bytes(), v); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
}

func refusedRun(t *testing.T, line, want string) {
	t.Helper()
	var out, log bytes.Buffer
	if code := run(t.Context(), strings.Fields(line), strings.NewReader(""), &out, &log); code != exitMisuse || !strings.Contains(log.String(), want) {
		t.Errorf("%s: exit code %d, %q, want %q", line, code, &log, want)
	}
}

// alike compares scores that are sums in different orders.
func alike(a, b map[string]any) bool {
	for key, v := range a {
		x, okX := v.(float64)
		y, okY := b[key].(float64)
		if okX != okY || math.Abs(x-y) > 1e-9*(1+math.Abs(x)) {
			return false
		}
	}
	return len(a) == len(b) && len(a) > 0
}

func inTemp(t *testing.T) (write func(name, text string)) {
	t.Chdir(t.TempDir())
	t.Cleanup(func() { par.SetWorkers(0) })
	return func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSamplesAreRecognised scores each task's model on the test samples alone: those of
// the test file are the same as those of a file in which training samples stand among
// them, in another order and under another name, and after training too.
func TestSamplesAreRecognised(t *testing.T) {
	for _, c := range sampledTasks {
		t.Run(c.task, func(t *testing.T) {
			write := inTemp(t)
			r := rand.New(rand.NewPCG(1, 2))
			var samples []string
			for i := range 40 {
				samples = append(samples, c.sample(r, i))
			}
			const tests = 12
			test, training := samples[:tests], samples[tests:]
			mixed := slices.Clone(samples)
			r.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
			file := func(list []string) string { return c.head + strings.Join(list, "") }
			write("train"+c.ext, file(training))
			write("test"+c.ext, file(test))
			write("mixed"+c.ext, file(mixed))
			write("crlf"+c.ext, strings.ReplaceAll(file(mixed), "\n", "\r\n"))
			write("twice"+c.ext, file(append(slices.Clone(mixed), training[0], training[1])))
			zip := &bytes.Buffer{}
			z := gzip.NewWriter(zip)
			fmt.Fprint(z, file(mixed))
			z.Close()
			write("mixed"+c.ext+".gz", zip.String())

			train := "train " + c.task + " --epochs 1 " + c.settings
			want := trained(t, fmt.Sprintf("%s --data train%[2]s --holdout 0.3 --test test%[2]s --out run", train, c.ext))
			if want.Part != "test" || want.Rows != tests || want.LeftOut != 0 {
				t.Fatalf("after training: %+v", want)
			}
			if got := evaluated(t, "evaluate run --data test"+c.ext); !reflect.DeepEqual(got, want) {
				t.Errorf("the test file: %+v, after training %+v", got, want)
			}
			for _, name := range []string{"mixed" + c.ext, "crlf" + c.ext, "mixed" + c.ext + ".gz"} {
				if got := evaluated(t, "evaluate run --data "+name); got.Part != "test" || got.Rows != tests || got.LeftOut != len(training) || !alike(got.Metrics, want.Metrics) {
					t.Errorf("%s: %+v, want the scores of the test file: %+v", name, got, want)
				}
			}
			if got := evaluated(t, "evaluate run --data twice"+c.ext); got.Rows != tests+2 {
				t.Errorf("with two samples of training once more: %+v", got)
			}
			if got := evaluated(t, "evaluate run --split-part all --data mixed"+c.ext); got.Rows != len(samples) || got.LeftOut != 0 {
				t.Errorf("all: %+v", got)
			}
			valid := evaluated(t, "evaluate run --data train"+c.ext)
			learnt := evaluated(t, "evaluate run --split-part train --data mixed"+c.ext)
			if valid.Part != "validation" || valid.Rows+learnt.Rows != len(training) || valid.Rows == 0 {
				t.Errorf("the training file: %+v, of which %d were learnt from", valid, learnt.Rows)
			}

			// What is dealt from one file is what evaluate scores on it.
			want = trained(t, fmt.Sprintf("%s --data twice%s --holdout 0.3 --out dealt", train, c.ext))
			if got := evaluated(t, "evaluate dealt --data twice"+c.ext); !reflect.DeepEqual(got, want) || got.Part != "validation" {
				t.Errorf("one file: %+v, after training %+v", got, want)
			}
			if c.task == "classify" {
				want = trained(t, fmt.Sprintf("%s --data twice%s --fold 1/4 --out fold", train, c.ext))
				if got := evaluated(t, "evaluate fold --data twice"+c.ext); !reflect.DeepEqual(got, want) || got.Part != "test" {
					t.Errorf("a fold: %+v, after training %+v", got, want)
				}
			}
			trained(t, fmt.Sprintf("%s --data train%s --holdout 0 --out all", train, c.ext))
			refusedRun(t, "evaluate all --data train"+c.ext, "every row is one that the model was trained on; give other data, or name the part to score with --split-part")
		})
	}
}

// book returns lines of made-up prose, no two alike.
func book(seed uint64, lines int) string {
	r := rand.New(rand.NewPCG(seed, 7))
	words := strings.Fields("the a cat dog bird house tree sat ran sang on in under old green small and then")
	var b strings.Builder
	for i := range lines {
		for range 6 + r.IntN(6) {
			b.WriteString(words[r.IntN(len(words))] + " ")
		}
		fmt.Fprintf(&b, "%d.\n", i)
		if i%9 == 8 {
			b.WriteString("\n")
		}
	}
	return b.String()
}

// TestTextsAreRecognised is the same for language models, whose texts may be cut.
func TestTextsAreRecognised(t *testing.T) {
	write := inTemp(t)
	text, other := book(1, 200), book(2, 30)
	write("book.txt", text)
	write("crlf.txt", strings.ReplaceAll(text, "\n", "\r\n"))
	write("longer.txt", text+other)
	write("other.txt", other)
	lines := strings.SplitAfter(text, "\n")
	write("cut.txt", strings.Join(lines[20:90], ""))
	write("around.txt", strings.Join(lines[50:80], "")+other+strings.Join(lines[10:40], ""))
	write("moved/b.txt", text)
	write("bytes.txt", text[1000:len(text)/2])
	write("start.txt", text[:len(text)/2])
	line := strings.Join(strings.Fields(text), " ") + "\n"
	write("line.txt", line)
	write("piece.txt", line[1000:len(line)/2])

	const settings = "train generate --hidden 8 --embedding 4 --epochs 1 --bptt 16 "
	want := trained(t, settings+"--data book.txt --split 0.8,0.1,0.1 --out run")
	runes := float64(len(text))
	tests := want.Metrics["bits_per_char"]
	for _, name := range []string{"book.txt", "moved", "moved/b.txt"} {
		if got := evaluated(t, "evaluate run --data "+name); got.Part != "test" || !reflect.DeepEqual(got.Metrics, want.Metrics) {
			t.Errorf("%s: %+v, after training %+v", name, got, want)
		}
	}
	characters := func(line string) (part string, n float64) {
		var v struct {
			Part       string
			Characters float64
		}
		decodeRun(t, "evaluate "+line, &v)
		return v.Part, v.Characters
	}
	if part, n := characters("run --data book.txt"); part != "test" || math.Abs(n-0.1*runes) > 1 || tests == nil {
		t.Errorf("scored %v characters of part %s, want a tenth of %v", n, part, runes)
	}
	if part, n := characters("run --data longer.txt"); part != "test" || math.Abs(n-0.1*runes-float64(len(other))) > 1 {
		t.Errorf("a longer text: %v characters of part %s", n, part)
	}
	for _, name := range []string{"other.txt", "around.txt"} {
		if part, n := characters("run --data " + name); part != "test" || n != float64(len(other)) {
			t.Errorf("%s: %v characters of part %s, want the %d that are new", name, n, part, len(other))
		}
	}
	trained(t, settings+"--data line.txt --split 0.8,0.1,0.1 --out line")
	if part, n := characters("line --data line.txt"); part != "test" || math.Abs(n-0.1*float64(len(line))) > 1 {
		t.Errorf("a text of one line: %v characters of part %s", n, part)
	}
	for _, line := range []string{"run --data cut.txt", "run --data bytes.txt", "run --data start.txt", "line --data piece.txt"} {
		refusedRun(t, "evaluate "+line, "every row is one that the model was trained on")
	}
	if part, n := characters("run --data crlf.txt"); part != "test" || math.Abs(n-0.1*runes) > 30 {
		t.Errorf("lines that end in CRLF: %v characters of part %s", n, part)
	}

	// Many documents are dealt as a whole.
	for i := range 120 {
		write(fmt.Sprintf("many/%d.txt", i), book(uint64(10+i%110), 4))
	}
	want = trained(t, settings+"--data many --split 0.7,0.1,0.2 --out many.run")
	if err := os.Rename("many", "renamed"); err != nil {
		t.Fatal(err)
	}
	if got := evaluated(t, "evaluate many.run --data renamed"); !reflect.DeepEqual(got, want) {
		t.Errorf("many documents: %+v, after training %+v", got, want)
	}
}

// TestRowsAreRecognised is the same for tables of time series.
func TestRowsAreRecognised(t *testing.T) {
	write := inTemp(t)
	timed := strings.SplitAfter(string(madeUp(400, "")), "\n")
	head, rows := timed[0], timed[1:]
	var plain []string // without times
	for _, row := range rows {
		if _, rest, ok := strings.Cut(row, ","); ok {
			plain = append(plain, rest)
		}
	}
	_, plainHead, _ := strings.Cut(head, ",")
	const settings = "train forecast --window 24 --horizon 6 --hidden 4 --layers 1 --epochs 1 --target y "
	for name, c := range map[string]struct {
		head     string
		rows     []string
		settings string
	}{"times": {head, rows[:400], "--time time"}, "numbers": {plainHead, plain[:400], ""}} {
		table := func(as string, from, to int) string {
			write(as, c.head+strings.Join(c.rows[from:to], ""))
			return as
		}
		want := trained(t, settings+c.settings+" --data "+table(name+".csv", 0, 300)+" --out "+name)
		if want.Part != "test" || want.Rows != 60 || want.LeftOut != 240 {
			t.Errorf("%s: after training: %+v", name, want)
		}
		if got := evaluated(t, "evaluate "+name+" --data "+table("again.csv", 0, 300)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, after training %+v", name, got, want)
		}
		for _, one := range []struct{ from, to, rows, left int }{
			{0, 400, 160, 240},   // later rows appended
			{300, 400, 100, 0},   // all of it later
			{100, 400, 160, 140}, // older rows gone
			{150, 300, 60, 90},   // both
			{225, 400, 160, 15},  // nothing that the weights were learnt from
			{245, 400, 155, 0},   // nothing but test rows
		} {
			if got := evaluated(t, "evaluate "+name+" --data "+table("part.csv", one.from, one.to)); got.Part != "test" || got.Rows != one.rows || got.LeftOut != one.left {
				t.Errorf("%s: rows %d to %d: %+v, want %d scored and %d left out", name, one.from, one.to, got, one.rows, one.left)
			}
		}
		if got := evaluated(t, "evaluate "+name+" --data "+table("part.csv", 0, 240)); got.Part != "validation" || got.Rows != 30 {
			t.Errorf("%s: without test rows: %+v", name, got)
		}
		refusedRun(t, "evaluate "+name+" --data "+table("part.csv", 20, 200), "every row is one that the model was trained on")
	}
}

// A model that an older version saved does not know its parts, and evaluate says so.
func TestOlderModelsDoNotRemember(t *testing.T) {
	var out, log bytes.Buffer
	code := run(t.Context(), []string{"evaluate", "../../testdata/format1/forecast/model", "--data", "../../testdata/format1/forecast/in.csv"}, strings.NewReader(""), &out, &log)
	if code != exitOK || !strings.Contains(log.String(), "does not know which rows it was trained on") || strings.Contains(out.String(), "new to the model") {
		t.Errorf("exit code %d\n%s%s", code, &log, &out)
	}
}
