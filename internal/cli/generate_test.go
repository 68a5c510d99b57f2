package cli

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/internal/par"
)

// TestLanguageModelWalkThrough runs the commands of docs/language-models.md, with
// a smaller network for a shorter time.
func TestLanguageModelWalkThrough(t *testing.T) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	src := filepath.Join(strings.TrimSpace(string(root)), "src")
	if _, missing := os.Stat(filepath.Join(src, "fmt")); err != nil || missing != nil {
		t.Skip("the source of the standard library is not here")
	}
	page, err := os.ReadFile("../../docs/language-models.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	t.Cleanup(func() { par.SetWorkers(0) })
	commands := 0
	for line := range strings.Lines(string(page)) {
		line, ok := strings.CutPrefix(strings.TrimSpace(line), "carousel ")
		if !ok {
			continue
		}
		commands++
		line = strings.ReplaceAll(line, `"$(go env GOROOT)/src`, `"`+filepath.ToSlash(src))
		args := shellWords(line)
		if args[0] == "train" {
			args = append(args, "--hidden", "24", "--epochs", "1", "--bptt", "64", "--batch", "16", "--quiet")
		}
		var stdout, stderr bytes.Buffer
		if code := run(context.Background(), args, strings.NewReader(""), &stdout, &stderr); code != 0 {
			t.Fatalf("carousel %s: exit %d\n%s%s", line, code, stdout.String(), stderr.String())
		}
		if stdout.Len() == 0 {
			t.Errorf("carousel %s: says nothing", line)
		}
	}
	if commands != 5 {
		t.Errorf("%d commands on the page, want 5", commands)
	}
	if _, err := os.Stat("lm/report.html"); err != nil {
		t.Error(err)
	}
}

// shellWords splits a line at spaces outside quotes.
func shellWords(line string) []string {
	var words []string
	word, quote := "", rune(0)
	for _, r := range line + " " {
		switch {
		case quote == 0 && (r == '\'' || r == '"'):
			quote = r
		case r == quote:
			quote = 0
		case quote == 0 && r == ' ':
			words, word = append(words, word), ""
		default:
			word += string(r)
		}
	}
	return words
}
