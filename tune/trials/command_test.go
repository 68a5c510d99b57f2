package trials

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tune"
)

// TestMain is also the program of the tests: CAROUSEL_TEST_PROGRAM says what it does.
func TestMain(m *testing.M) {
	if os.Getenv("CAROUSEL_TEST_PROGRAM") == "" {
		os.Exit(m.Run())
	}
	x, _ := strconv.ParseFloat(os.Args[2], 64)
	switch os.Args[1] {
	case "work":
		if err := workUntilKilled(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "run":
		c, err := NewCommand(os.Args[2], nil, 1, 9)
		if err == nil {
			_, err = c.Try(context.Background(), &Run{Space: &tune.Space{}, Report: func(at, _ int, _ []float64) (bool, error) {
				fmt.Println(at)
				return false, nil
			}})
		}
		fmt.Println(err)
	case "value":
		fmt.Println("read 500 rows")
		fmt.Printf("done, loss: %v\n", x*x)
	case "several":
		fmt.Printf("speed=7\n%v %v\n", x, 1-x)
		fmt.Println("bye")
	case "curve":
		for at := 1; at <= 9; at++ {
			fmt.Printf("at=%d value=%v steps=%d\n", at, x+1/float64(at), 10*at)
		}
	case "endless":
		for at := 1; ; at++ {
			fmt.Printf(`{"at": %d, "value": %v}`+"\n", at, x)
			time.Sleep(time.Millisecond)
		}
	case "fails":
		fmt.Println(x)
		fmt.Fprintln(os.Stderr, "loading\nno such luck")
		os.Exit(3)
	case "environment":
		fmt.Println(os.Getenv("CAROUSEL_PARAMS"), "trial", os.Getenv("CAROUSEL_TRIAL"), "seed", os.Args[3], os.Getenv("CAROUSEL_SEED"))
	}
	os.Exit(0)
}

func program(t testing.TB, line string, objectives ...string) *Command {
	t.Setenv("CAROUSEL_TEST_PROGRAM", "1")
	c, err := NewCommand("'"+os.Args[0]+"' "+line, objectives, 5, 9)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const line = "x: {low: -1, high: 1, default: 0.5}"

// once runs a program for one trial.
func once(t *testing.T, c *Command, text string, r *Run) (*Score, error) {
	r.Space = space(t, text)
	if err := c.Check(r.Space); err != nil {
		t.Fatal(err)
	}
	r.Values = r.Space.Defaults()
	if r.Report == nil {
		r.Report = func(int, int, []float64) (bool, error) { return false, nil }
	}
	return c.Try(t.Context(), r)
}

func TestCommand(t *testing.T) {
	s, err := once(t, program(t, "value {x}"), line, &Run{})
	if err != nil || !slices.Equal(s.Values, []float64{0.25}) {
		t.Error(s, err)
	}
	s, err = once(t, program(t, "several {x}", "-a", "b"), line, &Run{})
	if err != nil || !slices.Equal(s.Values, []float64{0.5, 0.5}) || s.Measures["speed"] != 7 {
		t.Error(s, err)
	}
	var curve []float64
	s, err = once(t, program(t, "curve {x}"), line, &Run{Report: func(at, steps int, values []float64) (bool, error) {
		if steps != 10*at {
			t.Error(at, steps)
		}
		curve = append(curve, values[0])
		return false, nil
	}})
	if err != nil || len(curve) != 9 || !slices.Equal(curve[8:], s.Values) || curve[0] != 1.5 {
		t.Error(s, curve, err)
	}
	s, err = once(t, program(t, "endless {x}"), line, &Run{Report: func(at, _ int, _ []float64) (bool, error) { return at == 3, nil }})
	if err != nil || s.Values[0] != 0.5 {
		t.Error(s, err)
	}
	if _, err = once(t, program(t, "fails {x}"), line, &Run{}); err == nil || err.Error() != "the command ended with exit status 3: no such luck" {
		t.Error(err)
	}
	if _, err = once(t, program(t, "nothing {x}"), line, &Run{}); err == nil || err.Error() != "the command printed no line with a number for each of its objectives, 1" {
		t.Error(err)
	}
	told := &output{command: program(t, "x"), measures: map[string]float64{}}
	s, err = once(t, program(t, "environment {x} {seed}-{{x}"), line, &Run{Trial: 7, Seed: 2})
	if err != nil || s.Values[0] != 7 {
		t.Error(s, err)
	}
	told.line("{\"x\":0.5} trial 3 accuracy 12.5%\n")
	if !slices.Equal(told.values, []float64{12.5}) {
		t.Error(told.values)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err = program(t, "endless 1").Try(ctx, &Run{Space: space(t, line), Report: func(at, _ int, _ []float64) (bool, error) {
		if at == 2 {
			cancel(tune.ErrFenced)
		}
		return false, nil
	}})
	if !errors.Is(err, tune.ErrFenced) {
		t.Error(err)
	}
}

func TestCommandLine(t *testing.T) {
	got, err := words(`a 'b "c'  "d \" \e" f\ g '' "{x}"h`)
	if want := []string{"a", `b "c`, `d " \e`, "f g", "", "{x}h"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	for line, want := range map[string]string{
		"a 'b": "command: a quote ' has no end; close it",
		" ":    `command: expected a program and its arguments, got nothing; write it as one text, such as "python train.py --lr {lr}"`,
	} {
		var input *data.InputError
		if _, err := NewCommand(line, nil, 0, 0); !errors.As(err, &input) || err.Error() != want {
			t.Errorf("%q: %v", line, err)
		}
	}
	c, err := NewCommand("go {wdith}", nil, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := "command: {wdith} is no parameter of the space; did you mean width?; name one of them, or write {{ for a brace"
	if err := c.Check(space(t, "width: {low: 1, high: 2}")); err == nil || err.Error() != want {
		t.Error(err)
	}
	s := space(t, line)
	var input *data.InputError
	missing, err := NewCommand("/there/is/no/such/program {x}", nil, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Begin(missing, s, tune.Options{}); !errors.As(err, &input) || !strings.Contains(err.Error(), "/there/is/no/such/program cannot be started") {
		t.Error(err)
	}
	if missing, err = NewCommand("/there/is/no/such/program{x} {x}", nil, 0, 0); err != nil { // it is known when a trial begins
		t.Fatal(err)
	}
	err = Work(t.Context(), study(t, missing, s, tune.NewMemory(), tune.Options{Trials: 3, Sampler: "random"}), missing, &Options{})
	if !errors.As(err, &input) || !strings.Contains(err.Error(), "/there/is/no/such/program0.5 cannot be started") {
		t.Error(err)
	}
}

// A study of a program, which the median pruner ends early, whose best trials are repeated.
func TestStudyOfCommand(t *testing.T) {
	c := program(t, "curve {x}")
	s := study(t, c, space(t, line), tune.NewMemory(), tune.Options{Trials: 20, Sampler: "random", Pruner: "median", Lag: 3, Seed: 2})
	o := &Options{Workers: 3}
	if err := Work(t.Context(), s, c, o); err != nil {
		t.Fatal(err)
	}
	if err := Repeat(t.Context(), s, c, o); err != nil {
		t.Fatal(err)
	}
	list, err := s.Trials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	states := map[tune.State]int{}
	for _, r := range list {
		states[r.State]++
	}
	if states[tune.Pruned] < 3 || states[tune.Pruned]+states[tune.Complete] != 20 {
		t.Error(states)
	}
	v, err := Judge(t.Context(), s)
	if err != nil || v.Defaults != 0 || !v.Beats || v.Within != 0 || len(v.Finalists) != 4 {
		t.Errorf("%+v, %v", v, err)
	}
	t.Log(states, v.Text)
}

// A measure that a constraint is on must be told; that of an objective is known.
func TestConstraintsOfCommand(t *testing.T) {
	_, err := once(t, program(t, "several {x}", "-a", "b"), line+"\nconstraints: [\"sped <= 3\"]", &Run{})
	if err == nil || !strings.Contains(err.Error(), `"sped <= 3" is on sped, which is no parameter`) {
		t.Error(err)
	}
	s, err := once(t, program(t, "several {x}", "-a", "b"), line+"\nconstraints: [\"speed <= 3\", \"b >= 0.6\"]", &Run{})
	if err != nil || s.Measures["speed"] != 7 || s.Measures["b"] != 0.5 {
		t.Error(s, err)
	}
}

// Nothing of a program stays behind, and what it has left at work does not spoil its result.
func TestCommandWithOffspring(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("sh")
	}
	defer func(d time.Duration) { grace = d }(grace)
	grace = 100 * time.Millisecond
	c, err := NewCommand(`sh -c "sleep 2 & echo 4"`, nil, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := once(t, c, line, &Run{})
	if err != nil || s.Values[0] != 4 {
		t.Error(s, err)
	}
	c, err = NewCommand(`sh -c "sh -c 'trap : TERM; echo pid=$$; echo at=1 value=1; while :; do sleep 0.05; done'; :"`, nil, 1, 9)
	if err != nil {
		t.Fatal(err)
	}
	s, err = once(t, c, line, &Run{Report: func(int, int, []float64) (bool, error) { return true, nil }})
	if err != nil || s.Measures["pid"] < 1 {
		t.Fatal(s, err)
	}
	waitGone(t, int(s.Measures["pid"]))
}

// waitGone waits until a process has ended.
func waitGone(t *testing.T, pid int) {
	child, err := os.FindProcess(pid)
	for try := 0; err == nil && child.Signal(syscall.Signal(0)) == nil; try++ {
		if stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); strings.Contains(string(stat), ") Z ") {
			break // dead, and not yet fetched by whoever inherits it
		}
		if try == 1000 {
			t.Fatal("it is still there")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A program, and what it has started, ends with the process that started it, also if that is killed.
func TestCommandOfTheKilled(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("sh")
	}
	w := exec.Command(os.Args[0], "run", `sh -c "sleep 100 & echo at=$! value=1; echo at=$$ value=1; wait"`)
	w.Env = append(os.Environ(), "CAROUSEL_TEST_PROGRAM=1")
	out, err := w.StdoutPipe()
	if err == nil {
		err = w.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var child, program int
	if _, err := fmt.Fscan(out, &child, &program); err != nil {
		t.Fatal(err)
	}
	if err := w.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = w.Wait()
	waitGone(t, program)
	waitGone(t, child)
}
