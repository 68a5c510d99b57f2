package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/speech/audio"
)

// TestScenarios runs the scripts in testdata. A script is lines of commands,
// then files in txtar's form (-- NAME -- on a line of its own, and the text).
// Each script runs in an empty directory that holds its files. Words may be
// quoted with '. The commands:
//
//	carousel ARG...        run the command in this process; at the end of the line, < FILE is its standard input
//	exit N                 the last run's exit code; where it is not checked it must be 0
//	stdout REGEXP          the last run's output matches; likewise stderr
//	! stdout REGEXP        it does not; likewise stderr
//	oneline                the last run's stderr was a single line
//	json PATH [VALUE]      stdout is one JSON object that has PATH (a.b.0.c), with that value
//	present PATH           the file or directory exists
//	absent PATH            it does not
//	same A B               two files are equal
//	series FILE N [KIND]   write N hours of a made-up series: daily (default), constant or walk
//	testdata PKG NAME FILE copy a file from model/PKG/testdata, of another program's
//	tones FILE LETTERS     write a WAV file with a tone for each letter
//	truncate FILE N        keep the first N bytes
//	alter FILE N           flip a bit of byte N; a negative N counts from the end
//	replace FILE OLD NEW   change a file's text
func TestScenarios(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range scripts {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		t.Run(name, func(t *testing.T) {
			model, err := filepath.Abs("../../model")
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(t.TempDir())
			t.Cleanup(func() { par.SetWorkers(0) })
			(&scenario{t: t, file: name, model: model}).play(string(text))
		})
	}
}

type scenario struct {
	t       *testing.T
	file    string
	model   string // directory of the package
	line    int
	ran     bool
	checked bool // the exit code of the last run
	code    int
	stdout  string
	stderr  string
}

func (s *scenario) play(text string) {
	script, files, _ := strings.Cut(text, "\n-- ")
	s.unpack("-- " + files)
	for _, line := range strings.Split(script, "\n") {
		s.line++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		s.do(line)
	}
	s.expectSuccess()
}

func (s *scenario) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s:%d: %s\nlast run: exit %d\nstdout: %s\nstderr: %s", s.file, s.line, fmt.Sprintf(format, args...), s.code, s.stdout, s.stderr)
}

// unpack writes the files of a txtar archive.
func (s *scenario) unpack(text string) {
	for _, part := range strings.Split("\n"+text, "\n-- ")[1:] {
		name, body, ok := strings.Cut(part, " --\n")
		if !ok {
			if strings.TrimSpace(part) != "" && !strings.HasSuffix(part, " --") {
				s.fatalf("bad archive entry %q", part)
			}
			name, body = strings.TrimSuffix(strings.TrimSpace(part), " --"), ""
		}
		if name == "" {
			continue
		}
		if body != "" && !strings.HasSuffix(body, "\n") {
			body += "\n"
		}
		s.write(name, []byte(body))
	}
}

func (s *scenario) write(name string, text []byte) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		s.fatalf("%v", err)
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		s.fatalf("%v", err)
	}
}

func (s *scenario) read(name string) []byte {
	s.t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		s.fatalf("%v", err)
	}
	return text
}

func (s *scenario) expectSuccess() {
	s.t.Helper()
	if s.ran && !s.checked && s.code != 0 {
		s.fatalf("want exit 0")
	}
}

func (s *scenario) do(line string) {
	s.t.Helper()
	words := s.words(line)
	want := true
	if words[0] == "!" {
		want, words = false, words[1:]
	}
	arg := func(i int) string {
		if i >= len(words) {
			s.fatalf("%s: too few words", line)
		}
		return words[i]
	}
	switch words[0] {
	case "carousel":
		s.expectSuccess()
		var stdin, stdout, stderr bytes.Buffer
		if n := len(words); n > 2 && words[n-2] == "<" {
			stdin.Write(s.read(words[n-1]))
			words = words[:n-2]
		}
		s.code = run(context.Background(), words[1:], &stdin, &stdout, &stderr)
		s.stdout, s.stderr, s.ran, s.checked = stdout.String(), stderr.String(), true, false
	case "exit":
		s.checked = true
		if strconv.Itoa(s.code) != arg(1) {
			s.fatalf("want exit %s", arg(1))
		}
	case "stdout", "stderr":
		text := map[string]string{"stdout": s.stdout, "stderr": s.stderr}[words[0]]
		if regexp.MustCompile("(?m)"+arg(1)).MatchString(text) != want {
			s.fatalf("%s", line)
		}
	case "oneline":
		if strings.Count(s.stderr, "\n") != 1 || !strings.HasPrefix(s.stderr, "carousel: ") {
			s.fatalf("want one line that begins with \"carousel: \"")
		}
	case "json":
		s.json(arg(1), words[2:])
	case "present", "absent":
		if _, err := os.Stat(arg(1)); (err == nil) != (words[0] == "present") {
			s.fatalf("%s: %v", line, err)
		}
	case "testdata":
		s.write(arg(3), s.read(filepath.Join(s.model, arg(1), "testdata", arg(2))))
	case "tones":
		s.write(arg(1), tones(arg(2)))
	case "same":
		if !bytes.Equal(s.read(arg(1)), s.read(arg(2))) {
			s.fatalf("%s and %s differ", arg(1), arg(2))
		}
	default:
		s.prepare(line, words, arg)
	}
}

// prepare runs the commands that make or damage files.
func (s *scenario) prepare(line string, words []string, arg func(int) string) {
	s.t.Helper()
	n := 0
	if words[0] != "replace" {
		var err error
		if n, err = strconv.Atoi(arg(2)); err != nil {
			s.fatalf("%s: %v", line, err)
		}
	}
	switch words[0] {
	case "series":
		s.write(arg(1), madeUp(n, strings.Join(words[3:], "")))
	case "truncate":
		s.write(arg(1), s.read(arg(1))[:n])
	case "alter":
		text := s.read(arg(1))
		if n < 0 {
			n += len(text)
		}
		text[n] ^= 1
		s.write(arg(1), text)
	case "replace":
		text := s.read(arg(1))
		if !bytes.Contains(text, []byte(arg(2))) {
			s.fatalf("%s has no %q", arg(1), arg(2))
		}
		s.write(arg(1), bytes.ReplaceAll(text, []byte(arg(2)), []byte(arg(3))))
	default:
		s.fatalf("unknown line %q", line)
	}
}

// words splits a line at spaces outside single quotes.
func (s *scenario) words(line string) []string {
	var words []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	return words
}

// json checks that stdout is one JSON object, and a value in it.
func (s *scenario) json(path string, want []string) {
	s.t.Helper()
	d := json.NewDecoder(strings.NewReader(s.stdout))
	var v any
	if err := d.Decode(&v); err != nil {
		s.fatalf("stdout is no JSON: %v", err)
	}
	if _, isObject := v.(map[string]any); !isObject || d.More() {
		s.fatalf("stdout is not one JSON object")
	}
	for _, key := range strings.Split(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			got, ok := at[key]
			if !ok {
				s.fatalf("no %q in the JSON", path)
			}
			v = got
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(at) {
				s.fatalf("no %q in the JSON", path)
			}
			v = at[i]
		default:
			s.fatalf("no %q in the JSON", path)
		}
	}
	if len(want) > 0 && fmt.Sprint(v) != want[0] {
		s.fatalf("%s is %v, want %s", path, v, want[0])
	}
}

// tones is a WAV file: a tone for each letter, one for each of a to e, after a
// little silence.
func tones(letters string) []byte {
	s := &audio.Sound{Rate: 8000}
	for _, c := range letters {
		s.Samples = append(s.Samples, make([]float32, 400)...)
		hz := 500 * math.Pow(1.5, float64(c-'a'))
		for i := range 800 {
			s.Samples = append(s.Samples, float32(0.3*math.Sin(2*math.Pi*hz*float64(i)/8000)))
		}
	}
	var b bytes.Buffer
	if err := audio.WriteWAV(&b, s); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// madeUp is a CSV of hours: a daily wave with a little noise, a constant, or a
// random walk, beside a covariate x.
func madeUp(n int, kind string) []byte {
	var b bytes.Buffer
	b.WriteString("time,y,x\n")
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	state, walk := uint32(1), 0.0
	noise := func() float64 { // in [-1, 1)
		state = state*1664525 + 1013904223
		return float64(state)/(1<<31) - 1
	}
	if !slices.Contains([]string{"", "daily", "constant", "walk"}, kind) {
		panic("unknown kind of series " + kind)
	}
	for i := range n {
		walk += noise()
		y := 100 + 10*math.Sin(2*math.Pi*float64(i)/24) + noise()
		switch kind {
		case "constant":
			y = 5
		case "walk":
			y = walk
		}
		fmt.Fprintf(&b, "%s,%.3f,%.3f\n", start.Add(time.Duration(i)*time.Hour).Format("2006-01-02T15:04:05"), y, noise())
	}
	return b.Bytes()
}
