package rig

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// A Team is a program in the namespace of each rank, which answers a line of JSON with another.
type Team struct {
	Network *Network
	all     []*process
}

type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// failure is the answer of a rank that cannot give one.
type failure struct{ Error string }

// Start starts a command for each rank, with further variables.
func (t *Team) Start(ctx context.Context, line func(rank int) []string, env ...string) error {
	for r := range t.Network.Ranks {
		c := t.Network.Command(ctx, r, line(r)...)
		c.Env = append(os.Environ(), env...)
		c.Stderr = os.Stderr
		in, err := c.StdinPipe()
		if err != nil {
			return err
		}
		out, err := c.StdoutPipe()
		if err != nil {
			return err
		}
		if err := c.Start(); err != nil {
			return err
		}
		p := &process{c, in, bufio.NewScanner(out)}
		p.out.Buffer(nil, 1<<20)
		t.all = append(t.all, p)
	}
	return nil
}

// Ask asks the first n ranks at once.
func Ask[A any](t *Team, n int, request any) ([]*A, error) {
	line, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	for _, p := range t.all[:n] {
		if _, err := p.in.Write(append(line, '\n')); err != nil {
			return nil, err
		}
	}
	var answers []*A
	for r, p := range t.all[:n] {
		f := failure{"it ended; what it said stands above"}
		a := new(A)
		if p.out.Scan() {
			f = failure{}
			for _, v := range []any{&f, a} {
				if err := json.Unmarshal(p.out.Bytes(), v); err != nil {
					return nil, err
				}
			}
		}
		if f.Error != "" {
			return nil, fmt.Errorf("rank %d: %s", r, f.Error)
		}
		answers = append(answers, a)
	}
	return answers, nil
}

// End lets the programs end.
func (t *Team) End() {
	for _, p := range t.all {
		p.in.Close()
	}
	for _, p := range t.all {
		_ = p.cmd.Wait() // an error was shown when it was asked
	}
}

// Serve answers requests in a rank until there are no more, or until one fails.
func Serve[Q, A any](in io.Reader, out io.Writer, answer func(q *Q) (*A, error)) error {
	lines, answers := bufio.NewScanner(in), json.NewEncoder(out)
	for lines.Scan() {
		q := new(Q)
		if err := json.Unmarshal(lines.Bytes(), q); err != nil {
			return err
		}
		a, err := answer(q)
		if err != nil {
			return answers.Encode(failure{err.Error()})
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}
