package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/carousel-ml/carousel"
)

// TestMadeUpTask puts a task into the table that the command has never heard of,
// and wants every command of a task's life to work. The task must be short.
func TestMadeUpTask(t *testing.T) {
	source, err := os.ReadFile("madeup_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(source, []byte("\n")); n > 150 {
		t.Errorf("the made-up task has %d lines; it should not need more than 150", n)
	}
	t.Chdir(t.TempDir())
	var lines strings.Builder
	for i := range 200 {
		a, b, c := float64(i%7)/7, float64(i%11)/11, float64(i%13)/13
		fmt.Fprintf(&lines, "%.3f %.3f %.3f %.3f\n", a, b, c, a+b+c)
	}
	if err := os.WriteFile("sums.txt", []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(exit int, args ...string) (stdout, stderr string) {
		t.Helper()
		var out, problems bytes.Buffer
		a := &app{kinds: append(slices.Clone(carousel.Tasks), sumTask), args: args, stdin: strings.NewReader("0.1 0.2 0.3\n"), stdout: &out, stderr: &problems}
		if code := a.run(t.Context()); code != exit {
			t.Fatalf("%v: exit code %d\n%s", args, code, &problems)
		}
		return out.String(), problems.String()
	}
	object := func(text string) (v map[string]any) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%v:\n%s", err, text)
		}
		return v
	}

	if help, _ := run(0, "train", "--help"); !strings.Contains(help, "Train an adder") {
		t.Errorf("the help of train does not know the task:\n%s", help)
	}
	text, _ := run(0, "train", "sum", "--data", "sums.txt", "--out", "run", "--quiet", "--json")
	trained := object(text)
	score := trained["evaluation"].(map[string]any)["RMSE"].(float64)
	if trained["schema"] != "carousel.train.sum.v1" || !(score > 0 && score < 0.1) || !strings.Contains(fmt.Sprint(trained["notes"]), "validation part") {
		t.Errorf("train: %s", text)
	}
	page, err := os.ReadFile(filepath.Join("run", "report.html"))
	if err != nil || !bytes.Contains(page, []byte("It adds.")) || !bytes.Contains(page, []byte("<td>network</td>")) || !bytes.Contains(page, []byte("Configuration")) {
		t.Errorf("the page lacks its parts: %v", err)
	}
	text, _ = run(0, "evaluate", "run", "--data", "sums.txt", "--split-part", "validation", "--json")
	if e := object(text); e["RMSE"] != score {
		t.Errorf("evaluate of the validation part: %v, and after training %v", e["RMSE"], score)
	}
	if text, _ = run(0, "evaluate", "run", "--data", "sums.txt"); !strings.Contains(text, "Scores on sums") || !strings.Contains(text, "RMSE") || !strings.Contains(text, "It adds.") {
		t.Errorf("evaluate: %s", text)
	}
	one, _ := run(0, "predict", "run", "--input", "0.1 0.2 0.3")
	if again, _ := run(0, "predict", "run", "--data", "-"); again != one || !strings.HasPrefix(one, "[0.") {
		t.Errorf("predict: %q from a text, %q from a stream", one, again)
	}
	text, _ = run(0, "inspect", "run", "--json")
	if in := object(text); in["task"] != "sum" || in["config"].(map[string]any)["hidden"] != 64.0 {
		t.Errorf("inspect: %s", text)
	}
	for want, args := range map[string][]string{
		"needs --data":                    {"train", "sum", "--out", "other"},
		"line 1: want three numbers":      {"predict", "run", "--input", "1 2"},
		"hidden: want a number from 1 to": {"train", "sum", "--data", "sums.txt", "--out", "other", "--hidden", "0"},
		`the part "test"`:                 {"evaluate", "run", "--data", "sums.txt", "--split-part", "test"},
		"explain gradients is for":        {"explain", "gradients", "run", "--data", "sums.txt"},
		"none.txt: there is no such file": {"evaluate", "run", "--data", "none.txt"},
		`unknown flag --beam`:             {"train", "sum", "--beam", "3"},
	} {
		if _, text := run(2, args...); !strings.Contains(text, want) || strings.Count(text, "\n") != 1 {
			t.Errorf("%v: got %q, want one line with %q", args, text, want)
		}
	}
}

// A result that cannot be printed is a failure.
func TestFullDisk(t *testing.T) {
	const old = "../../testdata/format1/"
	for _, args := range [][]string{
		{"inspect", old + "classify/model"}, {"inspect", old + "classify/model", "--json"}, {"version"}, {"docs"}, {"--help"}, {"train", "--help"}, {"completion", "bash"},
		{"generate", old + "generate/model", "--max-tokens", "1"}, {"generate", old + "generate/model", "--max-tokens", "1", "--stream"},
		{"predict", old + "classify/model", "--input", "good"},
	} {
		var problems bytes.Buffer
		a := &app{kinds: carousel.Tasks, args: args, stdout: fullDisk{}, stderr: &problems}
		if code := a.run(t.Context()); code != exitFailure || !strings.Contains(problems.String(), "no space left") {
			t.Errorf("%v: exit code %d, %q", args, code, &problems)
		}
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }
