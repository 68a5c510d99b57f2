package trials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/tune"
)

// A Command is a program that prints what its parameters are worth. It is started without a shell, once for each run,
// in the current folder. In its arguments {name} stands for the value of a parameter ("" where it is not used), {trial} for the
// trial's number and {seed} for a seed; {{ is a brace. Its environment has CAROUSEL_TRIAL, CAROUSEL_SEED, CAROUSEL_PARAMS (an object
// in JSON) and, unless they are set, OMP_NUM_THREADS and GOMAXPROCS for its share of the cores.
//
// The last number that it prints is its value; of several objectives the last line with as many numbers. A line of
// nothing but name=number, or an object in JSON, tells several things: "at" with "value" what the value is part way, after
// as many units of work, so that a pruner can end the program; "value" or the name of an objective its value; another
// name a number for constraints.
//
// Where a run is to end, the program gets SIGTERM and is killed ten seconds later, with all that it has started in its process group;
// likewise if this process is killed. On Windows it is killed at once, without what it has started, and goes on if this process is killed.
// An exit code other than 0 is a failure.
type Command struct {
	line       string
	args       []string
	objectives []tune.Objective
	seed       uint64
	units      int
}

// grace is how long a program that is to end has for it.
var grace = 10 * time.Second

// NewCommand parses a command line: words are separated by blanks and may be quoted as in a shell, and nothing else is
// expanded. objectives are free names, "-" before one says that more is better; none is "value". units is how far a
// whole run comes by its "at", 0 if it tells none. What is wrong is a *data.InputError.
func NewCommand(line string, objectives []string, seed uint64, units int) (*Command, error) {
	c := &Command{line: line, seed: seed, units: units}
	var err error
	if c.args, err = words(line); err != nil {
		return nil, err
	}
	if len(c.args) == 0 {
		return nil, &data.InputError{Problem: "command: expected a program and its arguments, got nothing", Fix: `write it as one text, such as "python train.py --lr {lr}"`}
	}
	if len(objectives) == 0 {
		objectives = []string{"value"}
	}
	for _, name := range objectives {
		bare, more := strings.CutPrefix(strings.TrimSpace(name), "-")
		if bare == "" || slices.ContainsFunc(c.objectives, func(o tune.Objective) bool { return o.Name == bare }) {
			return nil, &data.InputError{Problem: fmt.Sprintf("objective %q: expected names, each once", name), Fix: "name each once"}
		}
		c.objectives = append(c.objectives, tune.Objective{Name: bare, Maximize: more})
	}
	return c, nil
}

// words splits a command line as a shell does: '...' is literal, "..." has \" and \\, a backslash takes the next character.
func words(line string) (list []string, err error) {
	var word strings.Builder
	quote, in := rune(0), false
	runes := []rune(line)
	for i := 0; i < len(runes); i++ {
		c := runes[i]
		switch {
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n'):
			if in {
				list, in = append(list, word.String()), false
				word.Reset()
			}
			continue
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case c == quote:
			quote = 0
		case c == '\\' && quote != '\'' && i+1 < len(runes) && (quote == 0 || runes[i+1] == '"' || runes[i+1] == '\\'):
			i++
			word.WriteRune(runes[i])
		default:
			word.WriteRune(c)
		}
		in = true
	}
	if quote != 0 {
		return nil, &data.InputError{Problem: fmt.Sprintf("command: a quote %c has no end", quote), Fix: "close it"}
	}
	if in {
		list = append(list, word.String())
	}
	return list, nil
}

var placeholder = regexp.MustCompile(`\{\{|\{[A-Za-z_][A-Za-z_0-9.-]*\}`)

// Name is the command line.
func (c *Command) Name() string { return "command\n" + c.line }

// Data is empty: what a program reads is its own.
func (c *Command) Data() string { return "" }

// Objectives are those that it was made with.
func (c *Command) Objectives() []tune.Objective { return c.objectives }

// Units is how far a whole run comes.
func (c *Command) Units() int { return c.units }

// Resumable is false: a program begins anew each time.
func (c *Command) Resumable() bool { return false }

// Measured is empty: a program's numbers are taken as functions of its parameters and seed.
func (c *Command) Measured(*tune.Space) []string { return nil }

// Check returns a *data.InputError for a program that cannot be found, and for a placeholder that is no parameter of the space.
func (c *Command) Check(s *tune.Space) error {
	if !placeholder.MatchString(c.args[0]) {
		if _, err := exec.LookPath(c.args[0]); err != nil {
			return cannotStart(c.args[0], err)
		}
	}
	names := []string{"trial", "seed"}
	for _, p := range s.Params {
		names = append(names, p.Name)
	}
	for _, arg := range c.args {
		for _, hit := range placeholder.FindAllString(arg, -1) {
			if name := strings.Trim(hit, "{}"); hit != "{{" && !slices.Contains(names, name) {
				return &data.InputError{Problem: fmt.Sprintf("command: %s is no parameter of the space%s", hit, settings.DidYouMean(name, names, "", "there are ")), Fix: "name one of them, or write {{ for a brace"}
			}
		}
	}
	return nil
}

func cannotStart(program string, err error) error {
	return &data.InputError{Problem: fmt.Sprintf("command: %s cannot be started: %v", program, err), Fix: "name a program that is there"}
}

// fill replaces the placeholders of an argument.
func fill(arg string, values map[string]string) string {
	return placeholder.ReplaceAllStringFunc(arg, func(hit string) string {
		if hit == "{{" {
			return "{"
		}
		return values[strings.Trim(hit, "{}")]
	})
}

// Try runs the program.
func (c *Command) Try(ctx context.Context, r *Run) (*Score, error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	seed := strconv.FormatUint(c.seed+r.Seed, 10)
	values := map[string]string{"trial": strconv.Itoa(r.Trial), "seed": seed}
	for _, p := range r.Space.Params {
		if v, used := r.Values[p.Name]; used {
			values[p.Name] = p.Text(v)
		}
	}
	var args []string
	for _, arg := range c.args {
		args = append(args, fill(arg, values))
	}
	params, err := json.Marshal(r.Values)
	if err != nil {
		return nil, err
	}
	p := exec.CommandContext(ctx, args[0], args[1:]...)
	p.Env = append(os.Environ(), "CAROUSEL_ALONE=1", "CAROUSEL_TRIAL="+values["trial"], "CAROUSEL_SEED="+seed, "CAROUSEL_PARAMS="+string(params))
	for _, name := range []string{"OMP_NUM_THREADS", "GOMAXPROCS"} {
		if os.Getenv(name) == "" {
			p.Env = append(p.Env, name+"="+strconv.Itoa(par.Workers()))
		}
	}
	p.WaitDelay = grace
	ended := inOwnGroup(p)
	faults := &lastLine{}
	p.Stderr = faults
	told := &output{command: c, run: r, end: end, measures: map[string]float64{}}
	p.Stdout = told
	if err := p.Start(); err != nil {
		ended(false)
		return nil, &fatal{cannotStart(args[0], err)}
	}
	exit := p.Wait()
	told.take()             // a last line without an end
	ended(ctx.Err() != nil) // with what it has started and left behind
	if errors.Is(exit, exec.ErrWaitDelay) {
		exit = nil // it ended well; what it has started still holds its output
	}
	switch {
	case told.err != nil:
		return nil, told.err
	case told.stopped:
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case exit != nil && faults.text != "":
		return nil, fmt.Errorf("the command ended with %w: %s", exit, faults.text)
	case exit != nil:
		return nil, fmt.Errorf("the command ended with %w", exit)
	case told.values == nil:
		return nil, fmt.Errorf("the command printed no line with a number for each of its objectives, %d", len(c.objectives))
	}
	for _, one := range r.Space.Constraints {
		name := one.Measured()
		if i := slices.IndexFunc(c.objectives, func(o tune.Objective) bool { return o.Name == name }); i >= 0 {
			told.measures[name] = told.values[i]
		}
		if _, has := told.measures[name]; name != "" && !has && !told.stopped {
			return nil, fmt.Errorf("the constraint %q is on %s, which is no parameter, and the command printed no line such as %s=1", one.Text, name, name)
		}
	}
	return &Score{Values: told.values, Measures: told.measures}, nil
}

// output is what a program has told. It takes its standard output.
type output struct {
	command  *Command
	run      *Run
	end      func()    // ends the program
	rest     []byte    // of a line
	values   []float64 // the last ones
	measures map[string]float64
	stopped  bool
	err      error // of a report
}

func (o *output) Write(b []byte) (int, error) {
	const most = 1 << 20 // bytes of a line that are read
	for _, part := range bytes.SplitAfter(b, []byte("\n")) {
		o.rest = append(o.rest, part[:min(len(part), max(0, most-len(o.rest)))]...)
		if bytes.HasSuffix(part, []byte("\n")) {
			o.take()
		}
	}
	return len(b), nil
}

// take takes a line, unless the run has been stopped.
func (o *output) take() {
	text := string(o.rest)
	o.rest = o.rest[:0]
	if o.stopped || o.err != nil {
		return
	}
	if at, steps, reports := o.line(text); reports {
		o.stopped, o.err = o.run.Report(at, steps, o.values)
	}
	if o.stopped || o.err != nil {
		o.end()
	}
}

// line reads a line, and returns whether it tells how far the run has come.
func (o *output) line(text string) (at, steps int, reports bool) {
	n := len(o.command.objectives)
	told := pairs(text)
	if told == nil {
		if list := numbers(text); len(list) >= n {
			o.values = list[len(list)-n:]
		}
		return 0, 0, false
	}
	own := slices.Repeat([]float64{math.NaN()}, n)
	some := false
	if v, has := told["value"]; has {
		own[0], some = v, true
	}
	for i, objective := range o.command.objectives {
		if v, has := told[objective.Name]; has {
			own[i], some = v, true
		}
		delete(told, objective.Name)
	}
	unit, has := told["at"]
	at, steps = int(unit), int(told["steps"])
	for _, name := range []string{"at", "steps", "value"} {
		delete(told, name)
	}
	maps.Copy(o.measures, told)
	if some {
		o.values = own
	}
	return at, steps, has && some
}

// pairs returns the numbers of a line that is nothing but name=number, or an object in JSON; nil of another line.
func pairs(text string) map[string]float64 {
	told := map[string]float64{}
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		if json.Unmarshal([]byte(text), &told) != nil {
			return nil
		}
		return told
	}
	for _, word := range strings.Fields(text) {
		name, value, ok := strings.Cut(word, "=")
		x, err := strconv.ParseFloat(value, 64)
		if !ok || err != nil {
			return nil
		}
		told[name] = x
	}
	if len(told) == 0 {
		return nil
	}
	return told
}

// numbers returns the numbers among the words of a line.
func numbers(text string) (list []float64) {
	words := strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(" \t\r\n,;:=()[]{}\"'%", c) })
	for _, word := range words {
		if x, err := strconv.ParseFloat(word, 64); err == nil {
			list = append(list, x)
		}
	}
	return list
}

// lastLine keeps the last line that is written to it, as far as a message needs it.
type lastLine struct {
	text string
	rest []byte
}

func (l *lastLine) Write(b []byte) (int, error) {
	const most = 300
	for _, part := range bytes.SplitAfter(b, []byte("\n")) {
		l.rest = append(l.rest, part[:min(len(part), max(0, most-len(l.rest)))]...)
		if text := strings.TrimSpace(string(l.rest)); text != "" {
			l.text = text
		}
		if bytes.HasSuffix(part, []byte("\n")) {
			l.rest = l.rest[:0]
		}
	}
	return len(b), nil
}
