package main

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/internal/bench"
)

//go:embed onnxruntime.cjs
var onnxruntimeScript []byte

//go:embed pytorch.py
var pytorchScript []byte

// answerTime is how long a child may take over one request. Tests shorten it.
var answerTime = 5 * time.Minute

// child is a competitor in a separate process. It sends its name and passes, and
// then answers requests, one JSON object per line in each direction, until its
// stdin is closed. Between requests it is stopped.
type child struct {
	command string
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers chan answer
	passes  []string
	title   string
	kernels string // of the last result
	q       *problem
	dir     string
}

type request struct {
	Op    string       `json:"op"`
	Shape *bench.Shape `json:"shape,omitempty"`
	Dir   string       `json:"dir,omitempty"`
	Which string       `json:"which,omitempty"` // the pass; "pass" is a word of Python's
	Warm  int          `json:"warm"`
	Calls int          `json:"calls"`
	File  string       `json:"file,omitempty"`

	Model  string       `json:"model,omitempty"` // a ready model's file; the floats of input i are in in{i}.f32
	Inputs []readyInput `json:"inputs,omitempty"`
}

type answer struct {
	Name   string    `json:"name"`
	Passes []string  `json:"passes"`
	Ms     []float64 `json:"ms"`
	Bytes  int       `json:"bytes"`
	Uses   string    `json:"uses"` // kernels of the result
	Error  string    `json:"error"`
}

// onnxruntime starts node with the npm package onnxruntime-node, found below dir
// or, if dir is empty, where node searches by default (NODE_PATH).
func onnxruntime(node, dir, scratch string, threads int) (*child, error) {
	script := filepath.Join(scratch, "onnxruntime.cjs")
	if err := os.WriteFile(script, onnxruntimeScript, 0o644); err != nil {
		return nil, err
	}
	env := os.Environ()
	if dir != "" {
		modules, err := filepath.Abs(filepath.Join(dir, "node_modules"))
		if err != nil {
			return nil, err
		}
		env = append(env, "NODE_PATH="+modules)
	}
	return start(env, node, script, strconv.Itoa(threads))
}

// flushing is the mode in which PyTorch replaces subnormal numbers by zero, as far
// as it supports that, for the passes in which they occur.
const flushing = "flushing"

// pytorch starts a Python that has torch. The mode is a precision or flushing.
func pytorch(python, scratch string, threads int, mode string) (*child, error) {
	script := filepath.Join(scratch, "pytorch_peer.py")
	if err := os.WriteFile(script, pytorchScript, 0o644); err != nil {
		return nil, err
	}
	n := strconv.Itoa(threads)
	env := append(pythonEnv(python, os.Environ()), "OMP_NUM_THREADS="+n, "OPENBLAS_NUM_THREADS="+n, "MKL_NUM_THREADS="+n)
	return start(env, python, script, n, mode)
}

// pythonEnv removes the environment's settings for the system's OpenBLAS, unless
// the interpreter is the system's too: wheels have their own libraries.
func pythonEnv(python string, env []string) []string {
	if strings.HasPrefix(python, "/usr/") {
		return env
	}
	return slices.DeleteFunc(env, func(s string) bool {
		name, _, _ := strings.Cut(s, "=")
		return name == "OPENBLAS_CORETYPE" || name == "OPENBLAS_L2_SIZE"
	})
}

func start(env []string, command string, args ...string) (*child, error) {
	c := &child{command: command, cmd: exec.Command(command, args...), answers: make(chan answer)}
	c.cmd.Env, c.cmd.Stderr = env, os.Stderr
	ownGroup(c.cmd)
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go c.read(stdout)
	hello, err := c.receive("start")
	if err != nil {
		c.quit()
		return nil, err
	}
	c.title, c.passes = hello.Name, hello.Passes
	stop(c.cmd)
	return c, nil
}

// read passes on the answers until the child's stdout ends.
func (c *child) read(stdout io.Reader) {
	defer close(c.answers)
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			a = answer{Error: fmt.Sprintf("answers %.80q", lines.Text())}
		}
		c.answers <- a
	}
}

// refusedError is a request that a child cannot fulfil, or takes too long over. After an
// error that it told it answers further ones.
type refusedError struct{ command, op, why string }

func (e *refusedError) Error() string { return fmt.Sprintf("%s: %s: %s", e.command, e.op, e.why) }

func (c *child) receive(op string) (answer, error) {
	select {
	case a, ok := <-c.answers:
		switch {
		case !ok:
			return a, fmt.Errorf("%s: %s: the process has ended", c.command, op)
		case a.Error != "":
			return a, &refusedError{c.command, op, a.Error}
		}
		return a, nil
	case <-time.After(answerTime):
		c.passes = nil // what it still said would be taken for the next answer
		c.cmd.Process.Kill()
		return answer{}, &refusedError{c.command, op, fmt.Sprintf("no answer within %v, it takes no further part", answerTime)}
	}
}

func (c *child) ask(r request) (answer, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return answer{}, err
	}
	resume(c.cmd)
	defer stop(c.cmd)
	if _, err := c.stdin.Write(append(line, '\n')); err != nil {
		return answer{}, fmt.Errorf("%s: %s: %w", c.command, r.Op, err)
	}
	return c.receive(r.Op)
}

// quit closes the child's stdin, which ends it, and after a while kills it.
func (c *child) quit() {
	resume(c.cmd)
	c.stdin.Close()
	timer := time.AfterFunc(10*time.Second, func() { c.cmd.Process.Kill() })
	defer timer.Stop()
	for range c.answers { // what it still says
	}
	c.cmd.Wait() // how it ended changes nothing any more
}

func (c *child) name() string            { return c.title }
func (c *child) uses() string            { return c.kernels }
func (c *child) offers(pass string) bool { return slices.Contains(c.passes, pass) }

func (c *child) open(q *problem, dir string) error {
	c.q, c.dir = q, dir
	_, err := c.ask(request{Op: "open", Shape: &q.shape, Dir: dir, Model: q.model, Inputs: q.inputs})
	return err
}

func (c *child) run(pass string, warm, calls int) ([]float64, error) {
	a, err := c.ask(request{Op: "run", Which: pass, Warm: warm, Calls: calls})
	if err == nil && len(a.Ms) != calls {
		err = fmt.Errorf("%s: %d times for %d calls", c.command, len(a.Ms), calls)
	}
	return a.Ms, err
}

func (c *child) result(pass string) ([]float32, error) {
	file := filepath.Join(c.dir, "result.f32")
	defer os.Remove(file)
	a, err := c.ask(request{Op: "save", Which: pass, File: file})
	if err != nil {
		return nil, err
	}
	c.kernels = a.Uses
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if v := floatsOf(raw); len(v) == c.q.outputs(pass) {
		return v, nil
	}
	return nil, fmt.Errorf("%s: %s gives %d bytes, want %d numbers", c.command, pass, len(raw), c.q.outputs(pass))
}

func (c *child) memory(q *problem, dir string) (int, error) {
	a, err := c.ask(request{Op: "memory", Shape: &q.shape, Dir: dir})
	return a.Bytes, err
}

func (c *child) close() error {
	if c.passes == nil {
		return nil // it was ended
	}
	_, err := c.ask(request{Op: "close"})
	return err
}
