package train

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestSecondRun wants a run refused while another has its directory, in this process
// and another, and admitted after the other has ended, even by a kill.
func TestSecondRun(t *testing.T) {
	if dir := os.Getenv("CAROUSEL_TEST_RUN"); dir != "" {
		o := newOptions()
		o.Dir, o.CheckpointEvery = dir, 1
		o.OnEpoch = func(Record) error {
			fmt.Println("training")
			time.Sleep(time.Minute)
			return nil
		}
		_, err := Fit(t.Context(), newJob(16), o)
		fmt.Println("ended:", err)
		return
	}
	dir := t.TempDir()
	o := newOptions()
	o.Dir = dir
	other := func() (cmd *exec.Cmd, line string) {
		cmd = exec.Command(os.Args[0], "-test.run=^TestSecondRun$")
		cmd.Env = append(os.Environ(), "CAROUSEL_TEST_RUN="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		line, err = bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return cmd, strings.TrimSpace(line)
	}
	refused := func() {
		t.Helper()
		was, err := os.ReadFile(lastPath(dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, resume := range []bool{true, false} {
			o := *o
			o.Resume = resume
			_, err = Fit(t.Context(), newJob(16), &o)
			if !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
				t.Errorf("a second run, resume %v: got %v, want one line that names %s", resume, err, dir)
			}
		}
		if is, err := os.ReadFile(lastPath(dir)); err != nil || !bytes.Equal(was, is) {
			t.Errorf("the refused run wrote a checkpoint (%v)", err)
		}
	}

	first, line := other()
	if line != "training" {
		t.Fatal(line)
	}
	refused()
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()

	o.Resume = true
	tried := false
	o.OnEpoch = func(Record) error {
		if !tried {
			tried = true
			refused()
			if _, line := other(); !strings.Contains(line, ErrRunning.Error()) {
				t.Errorf("a run in another process: %q", line)
			}
		}
		return nil
	}
	if r := fit(t, newJob(16), o); r.ResumedAt == 0 || !tried {
		t.Errorf("not resumed after the kill: %+v", r)
	}
	if es, _ := os.ReadDir(dir); len(es) != 2 { // checkpoints and metrics.jsonl
		t.Errorf("left behind: %v", es)
	}
}
