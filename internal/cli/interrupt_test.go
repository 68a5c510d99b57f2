package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/train"
)

// trigger calls fire once, when text passes through.
type trigger struct {
	bytes.Buffer
	text string
	fire func()
}

func (w *trigger) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.fire()
	}
	return w.Buffer.Write(p)
}

// A training that is interrupted leaves a checkpoint and says how to go on;
// resumed, it ends with the same bytes as one that was left alone.
func TestInterruptAndResume(t *testing.T) {
	dir := t.TempDir()
	table := filepath.Join(dir, "hours.csv")
	if err := os.WriteFile(table, madeUp(400, ""), 0o600); err != nil {
		t.Fatal(err)
	}
	args := func(out string, more ...string) []string {
		return append([]string{"train", "forecast", "--data", table, "--time", "time", "--target", "y", "--window", "24", "--horizon", "6",
			"--hidden", "8", "--layers", "1", "--epochs", "3", "--out", filepath.Join(dir, out)}, more...)
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), args("whole"), nil, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout.Reset()
	watch := &trigger{text: "epoch 1/3", fire: cancel}
	if code := run(ctx, args("cut"), nil, &stdout, watch); code != exitInterrupted {
		t.Fatalf("exit %d, want %d: %s", code, exitInterrupted, watch.String())
	}
	lines := strings.Split(strings.TrimSpace(watch.String()), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "carousel: interrupted at step ") || !strings.Contains(last, "holds the model of epoch 1, the best so far") || !strings.HasSuffix(last, " --resume") {
		t.Errorf("last line %q, want how to resume", last)
	}
	if stdout.Len() > 0 {
		t.Errorf("an interrupted run printed a result: %s", stdout.String())
	}
	stdout.Reset()
	if code := run(t.Context(), []string{"predict", filepath.Join(dir, "cut"), "--data", table}, nil, &stdout, &stderr); code != exitOK || strings.Count(stdout.String(), "\n") != 1+6 {
		t.Errorf("the model of an interrupted run: exit %d, %s%s", code, stderr.String(), stdout.String())
	}

	stderr.Reset()
	if code := run(t.Context(), args("cut", "--resume"), nil, &stdout, &stderr); code != exitOK {
		t.Fatalf("resume: exit %d: %s", code, stderr.String())
	}
	whole, err := os.ReadFile(filepath.Join(dir, "whole", "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	cut, err := os.ReadFile(filepath.Join(dir, "cut", "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(whole, cut) {
		t.Error("the resumed run's weights differ from those of a run left alone")
	}
}

// A training that memory runs out for ends as with Ctrl-C, and says why.
func TestLackOfMemoryLeavesACheckpoint(t *testing.T) {
	dir := t.TempDir()
	table, out := filepath.Join(dir, "hours.csv"), filepath.Join(dir, "run")
	if err := os.WriteFile(table, madeUp(400, ""), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &app{kinds: carousel.Tasks, stdout: io.Discard, args: []string{"train", "forecast", "--data", table, "--time", "time", "--target", "y",
		"--window", "24", "--horizon", "6", "--hidden", "8", "--layers", "1", "--epochs", "3", "--out", out}}
	watch := &trigger{text: "epoch 1/3", fire: func() {
		a.lack.Store(a.lacking("", "there is no more"))
		(*a.stop.Load())()
	}}
	a.stderr = watch
	if code := a.run(t.Context()); code != exitFailure {
		t.Errorf("exit %d, want %d: %s", code, exitFailure, watch.String())
	}
	lines := strings.Split(strings.TrimSpace(watch.String()), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, `carousel: out of memory in "train forecast": there is no more; lower --batch`) || !strings.Contains(last, "; interrupted at step ") || !strings.HasSuffix(last, " --resume") {
		t.Errorf("last line %q", last)
	}
	if !train.HasCheckpoint(out) {
		t.Error("there is no checkpoint")
	}
}

// What Ctrl-C ends, and nothing need be done about, says just that.
func TestInterruptedGeneration(t *testing.T) {
	dir := t.TempDir()
	book, out := filepath.Join(dir, "book.txt"), filepath.Join(dir, "run")
	if err := os.WriteFile(book, bytes.Repeat([]byte("the cat sat on the mat\n"), 20), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"train", "generate", "--data", book, "--hidden", "4", "--epochs", "1", "--quiet", "--out", out}, nil, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	stderr.Reset()
	if code := run(ctx, []string{"generate", out, "--max-tokens", "1000000"}, nil, &stdout, &stderr); code != exitInterrupted || stderr.String() != "carousel: interrupted\n" {
		t.Errorf("exit %d: %s", code, stderr.String())
	}
}

// A panic below ends in one line and exit code 1, never in a stack.
func TestPanicIsOneLine(t *testing.T) {
	var stderr bytes.Buffer
	t.Setenv("CAROUSEL_DEBUG", "")
	if code := reportPanic(&stderr, "index out of\nrange"); code != exitFailure {
		t.Errorf("exit %d, want %d", code, exitFailure)
	}
	if got := stderr.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "carousel: internal error: index out of range") {
		t.Errorf("got %q", got)
	}
	t.Setenv("CAROUSEL_DEBUG", "1")
	stderr.Reset()
	reportPanic(&stderr, "x")
	if !strings.Contains(stderr.String(), "goroutine") {
		t.Error("CAROUSEL_DEBUG=1 prints no stack")
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{"a/b.csv": "a/b.csv", "": "''", "two words": "'two words'", "it's": `'it'\''s'`, "$HOME": "'$HOME'"} {
		if got := shellQuote(in); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", in, got, want)
		}
	}
}

// Ctrl-C ends a stream that would go on, and the text is that of the sound until then.
func TestInterruptedStream(t *testing.T) {
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	for i, letters := range []string{"abab", "baba", "aabb", "bbaa"} {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i, ".wav")), tones(letters), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	manifest := filepath.Join(dir, "m.csv")
	if err := os.WriteFile(manifest, []byte("audio,text\n0.wav,abab\n1.wav,baba\n2.wav,aabb\n3.wav,bbaa\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(dir, "run")
	args := []string{"train", "transcribe", "--data", manifest, "--hidden", "16", "--layers", "1", "--bands", "20", "--stack", "2", "--bidirectional=false",
		"--epochs", "2", "--holdout", "0.25", "--out", model}

	// One that comes after the last epoch leaves the run to be continued.
	ctx, cancel := context.WithCancel(t.Context())
	watch := &trigger{text: "stopped by: epochs", fire: cancel}
	if code := run(ctx, args, nil, &stdout, watch); code != exitInterrupted || !strings.Contains(watch.String(), "carousel: interrupted; to continue: ") {
		t.Fatalf("exit %d, want %d: %s", code, exitInterrupted, watch.String())
	}
	if code := run(t.Context(), append(args, "--resume"), nil, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}

	for _, sound := range [][]byte{tones("abab")[44:], {}} {
		ctx, cancel := context.WithCancel(t.Context())
		in, out := io.Pipe()
		go func() {
			out.Write(sound)
			time.Sleep(300 * time.Millisecond) // for what was written to be read
			cancel()
		}()
		stdout.Reset()
		stderr.Reset()
		code := run(ctx, []string{"transcribe", model, "-", "--raw", "8000", "--json"}, in, &stdout, &stderr)
		switch {
		case len(sound) == 0 && (code != exitInterrupted || !strings.Contains(stderr.String(), "interrupted before there was any sound")):
			t.Errorf("without sound: exit %d, %s", code, stderr.String())
		case len(sound) > 0 && (code != exitOK || !strings.Contains(stdout.String(), `"seconds":0.`)):
			t.Errorf("exit %d, %s, %s", code, stdout.String(), stderr.String())
		}
		in.Close()
		cancel()
	}
}

// What is printed as a command is one line that a shell reads back.
func TestShellReadsQuotes(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	for _, s := range []string{"plain-1.csv", "", "two words", "it's", "a\nb", "tab\tand 'quotes' \\ back", "$HOME `x` \"q\"", "ö\x7f"} {
		quoted := shellQuote(s)
		out, err := exec.Command(bash, "-c", "printf %s "+quoted).Output()
		if err != nil || string(out) != s || strings.Contains(quoted, "\n") {
			t.Errorf("%q is quoted as %s, which gives %q: %v", s, quoted, out, err)
		}
	}
}
