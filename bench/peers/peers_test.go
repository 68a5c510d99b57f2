package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/tensor"
)

// The test binary plays a peer when this is set.
const playPeer = "CAROUSEL_TEST_PEER"

func TestMain(m *testing.M) {
	if os.Getenv(playPeer) != "" {
		fakePeer()
		return
	}
	os.Exit(m.Run())
}

// fakePeer answers with p in place of outputs, at 5 ms a call, and refuses steps.
func fakePeer() {
	say := func(a any) {
		text, _ := json.Marshal(a)
		fmt.Println(string(text))
	}
	say(answer{Name: "fake 1.0", Passes: []string{forward, step, language}})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			say(answer{Error: err.Error()})
			continue
		}
		switch r.Op {
		case "run":
			say(answer{Ms: slices.Repeat([]float64{5}, r.Calls)})
		case "save":
			switch r.Which {
			case step:
				say(answer{Error: "no primitive"})
				continue
			case language:
				continue // too slow
			}
			x, _ := os.ReadFile(filepath.Join(filepath.Dir(r.File), "p.f32"))
			err := os.WriteFile(r.File, x, 0o644)
			say(answer{Uses: "fake kernels", Error: map[bool]string{false: "cannot write"}[err == nil]})
		case "open", "close":
			say(answer{})
		default:
			say(answer{Error: "no such request"})
		}
	}
}

var small = bench.Shape{Name: "small", T: 3, B: 2, I: 5, H: 4, L: 2}

func TestChild(t *testing.T) {
	c, err := start(append(os.Environ(), playPeer+"=1"), os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if c.name() != "fake 1.0" || !c.offers(forward) || c.offers(train) {
		t.Errorf("greeting: %s %v", c.title, c.passes)
	}
	q, dir := newProblem(small), t.TempDir()
	if err := q.write(dir); err != nil {
		t.Fatal(err)
	}
	if err := c.open(q, dir); err != nil {
		t.Fatal(err)
	}
	if ms, err := c.run(forward, 1, 3); err != nil || !slices.Equal(ms, []float64{5, 5, 5}) {
		t.Errorf("run: %v, %v", ms, err)
	}
	if y, err := c.result(forward); err != nil || !slices.Equal(y, q.p) || c.uses() != "fake kernels" {
		t.Errorf("result: %v, computed with %q, %v", y, c.uses(), err)
	}
	if _, err := c.result(train); err == nil || !strings.Contains(err.Error(), "want") {
		t.Errorf("a result of the wrong size: %v", err)
	}
	if _, err := c.memory(q, dir); err == nil || !strings.Contains(err.Error(), "no such request") {
		t.Errorf("an error of the peer: %v", err)
	}
	c.quit()
	if !c.cmd.ProcessState.Success() {
		t.Errorf("a closed stdin ends the peer with %v", c.cmd.ProcessState)
	}
	if _, err := start(os.Environ(), "/nonexistent/python"); err == nil {
		t.Error("a command that is not there starts")
	}
	if _, err := start(os.Environ(), os.Args[0], "-test.list=^$"); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("a peer that says nothing: %v", err)
	}
}

func TestContest(t *testing.T) {
	defer par.SetWorkers(0)
	peer, err := start(append(os.Environ(), playPeer+"=1"), os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	c := &contest{all: []competitor{newCarousel(1, tensor.Float32), peer}, threads: 1, rounds: 1, precision: bfloat16s, scratch: t.TempDir(), note: t.Logf}
	rows, err := c.shape(t.Context(), small, []string{forward, train, step})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 {
		t.Fatalf("%d rows: nobody but Carousel trains", len(rows))
	}
	if got := fmt.Sprint(c.missing); got != "[{fake 1.0 [small step] no primitive}]" {
		t.Errorf("left out: %s", got)
	}
	r := rows[0]
	if r.Uses != tensor.CPU().Name() || r.PeerUses != "fake kernels" {
		t.Errorf("computed with %q and %q", r.Uses, r.PeerUses)
	}
	if r.Agrees || r.Peer != "fake 1.0" || r.PeerMs != 5 || r.Rounds < 1 || math.Abs(r.Ratio*r.Ms/5-1) > 0.5 {
		t.Errorf("%+v", r)
	}
	var text strings.Builder
	(&Report{Rows: rows, Memory: []Memory{{"A", "fake 1.0", 5e6}}, Missing: c.missing}).print(&text)
	if !strings.Contains(text.String(), "| small | forward | fake 1.0 |") || !strings.Contains(text.String(), "| fake kernels |\n") || !strings.Contains(text.String(), "| A | fake 1.0 | 5 |") || !strings.HasSuffix(text.String(), "\n- fake 1.0 of small step: no primitive\n") {
		t.Error(text.String())
	}
	// Those who can compute the pass are still compared.
	c.all = append(own(&options{threads: 1, precision: bfloat16s}), peer)
	if rows, err = c.shape(t.Context(), small, []string{step}); err != nil || len(rows) != 1 || rows[0].Peer != c.all[1].name() || !rows[0].Agrees || len(c.missing) != 1 || len(c.missing[0].From) != 2 {
		t.Errorf("with one that cannot: %+v, %v, left out %v", rows, err, c.missing)
	}
	// One that does not answer is ended and takes no further part.
	slow, err := start(append(os.Environ(), playPeer+"=1"), os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	q, dir := newProblem(small), t.TempDir()
	q.lesson = newLesson(language, small, 30)
	in := append(c.all[:2:2], slow)
	for _, p := range in {
		if err := p.open(q, dir); err != nil {
			t.Fatal(err)
		}
	}
	answerTime = time.Millisecond
	rows, err = c.pass(t.Context(), q, language, in)
	answerTime = 5 * time.Minute
	if err != nil || len(rows) != 1 || len(c.missing) != 2 || c.missing[1].From[0] != "small language" || !strings.HasPrefix(c.missing[1].Why, "no answer within") {
		t.Errorf("with a slow one: %+v, %v, left out %v", rows, err, c.missing)
	}
	if slow.offers(forward) || slow.close() != nil {
		t.Error("the slow one takes part again")
	}
	slow.quit()
	// One that has ended by itself is no such case.
	peer.quit()
	if _, err := c.shape(t.Context(), small, []string{forward}); err == nil {
		t.Error("a peer that has ended is left out")
	}
	left, err := os.ReadDir(c.scratch)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A model read from a file computes what the network of the same weights does.
func TestReady(t *testing.T) {
	defer par.SetWorkers(0)
	q, dir := newProblem(small), t.TempDir()
	m := readyModel{name: "lstm", file: "model.onnx", inputs: []readyInput{{Name: "x", Dims: []int{small.T, small.B, small.I}, size: 1}}}
	if _, err := readyProblem(dir, m); err == nil || !strings.Contains(err.Error(), "--models") {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := q.write(dir); err != nil {
		t.Fatal(err)
	}
	file, err := readyProblem(dir, m)
	if err != nil {
		t.Fatal(err)
	}
	q.x = file.floats(0)
	var y [2][]float32
	for i, p := range []*problem{q, file} {
		c, pass := newCarousel(1, tensor.Float32), []string{forward, ready}[i]
		if !p.poses(pass) || p.poses(train) == (pass == ready) {
			t.Errorf("%s: the wrong passes", pass)
		}
		if err := c.open(p, dir); err != nil {
			t.Fatal(err)
		}
		if y[i], err = c.result(pass); err != nil || len(y[i]) != p.outputs(pass) {
			t.Fatalf("%s: %d outputs, %v", pass, len(y[i]), err)
		}
	}
	if d := file.difference(ready, y[1], y[0]); !(d < 1e-6) {
		t.Errorf("the outputs differ by %g", d)
	}
}

// Carousel against itself: one training pass per tape, gradients in the order of the weights.
func TestCarousel(t *testing.T) {
	defer par.SetWorkers(0)
	q := newProblem(small)
	var first [2][]float32
	for i := range first {
		c := newCarousel(1+i, tensor.Float32)
		if err := c.open(q, ""); err != nil {
			t.Fatal(err)
		}
		if ms, err := c.run(train, 1, 2); err != nil || len(ms) != 2 {
			t.Fatal(ms, err)
		}
		var err error
		if first[i], err = c.result(train); err != nil || len(first[i]) != q.outputs(train) {
			t.Fatalf("%d gradients, %v", len(first[i]), err)
		}
		if y, err := c.result(forward); err != nil || len(y) != q.outputs(forward) {
			t.Fatalf("%d outputs, %v", len(y), err)
		}
	}
	if d := q.difference(train, first[0], first[1]); d != 0 {
		t.Errorf("gradients differ by %g", d)
	}
	// One element off by a tenth of its parameter's greatest.
	last := len(first[1]) - 1
	bias := first[1][last+1-4*small.H:]
	_, size := farthest(bias, bias)
	first[1][last] += float32(size / 10)
	if d := q.difference(train, first[1], first[0]); d < 0.09 || d > 0.11 {
		t.Errorf("difference %g", d)
	}
	first[0][0] = float32(math.NaN())
	if d := q.difference(train, first[0], first[1]); !math.IsNaN(d) {
		t.Errorf("not a number differs by %g", d)
	}
}

// A gradient at the end alone, of a loss of 1 and of 1e-8, is the problem of one shape and of no other.
func TestEnds(t *testing.T) {
	defer par.SetWorkers(0)
	s := small
	s.Name = ending.Name
	q := newProblem(s)
	if n := (s.T - 1) * s.B * s.H; slices.ContainsFunc(q.p[:n], func(x float32) bool { return x != 0 }) || slices.Contains(q.p[n:], 0) {
		t.Errorf("weights of the outputs: %v", q.p)
	}
	for pass, here := range map[string]bool{vanish: true, faint: true, forward: false, train: false, language: false} {
		if q.poses(pass) != here {
			t.Errorf("%s at the shape of its own: %v", pass, !here)
		}
		if want := !here && pass != language; newProblem(small).poses(pass) != want {
			t.Errorf("%s elsewhere: %v", pass, !want)
		}
	}
	if got := q.compared(faint); !slices.Equal(got, []string{forward, faint}) {
		t.Errorf("compared: %v", got)
	}
	c := newCarousel(1, tensor.Float32)
	if err := c.open(q, ""); err != nil {
		t.Fatal(err)
	}
	large, err := c.result(vanish)
	if err != nil || len(large) != q.outputs(vanish) {
		t.Fatalf("%d gradients, %v", len(large), err)
	}
	tiny, err := c.result(faint)
	if err != nil {
		t.Fatal(err)
	}
	for i := range tiny {
		tiny[i] *= 1e8
	}
	if d := q.difference(vanish, tiny, large); d > 1e-5 {
		t.Errorf("gradients of a small loss are %g from a large one's", d)
	}
	if ms, err := c.run(faint, 1, 2); err != nil || len(ms) != 2 {
		t.Error(ms, err)
	}
}

// The stack and the models around it learn what they read, and begin anew with every problem and pass.
func TestLessons(t *testing.T) {
	defer par.SetWorkers(0)
	for _, pass := range []string{language, speech, step} {
		q := newProblem(small)
		q.shape.T = 80 // long enough to spell the text
		q = &problem{shape: q.shape, weights: q.weights, x: bench.Normals(1, q.shape.T*q.shape.B*q.shape.I), p: bench.Normals(2, q.shape.T*q.shape.B*q.shape.H)}
		least := 0.5 // of the targets' mean square, which is about 1
		if pass != step {
			q.lesson, least = newLesson(pass, q.shape, 30), 3
		}
		var first []float32
		for range 2 {
			c := newCarousel(1, tensor.Float32)
			if err := c.open(q, ""); err != nil {
				t.Fatal(err)
			}
			losses, err := c.result(pass)
			if err != nil || len(losses) != q.outputs(pass) || float64(losses[0]) < least || losses[2] >= losses[0] {
				t.Fatalf("%s: losses %v, %v", pass, losses, err)
			}
			if first != nil && !slices.Equal(losses, first) {
				t.Errorf("%s: losses %v, at first %v", pass, losses, first)
			}
			first = losses
			if ms, err := c.run(pass, 1, 2); err != nil || len(ms) != 2 {
				t.Error(ms, err)
			}
			if err := c.open(q, ""); err != nil { // without closing first
				t.Fatal(err)
			}
			if again, err := c.result(pass); err != nil || !slices.Equal(again, losses) {
				t.Errorf("%s once more: losses %v, %v", pass, again, err)
			}
			if other, err := c.result(step); err != nil || pass != step && other[0] > losses[0]/2 {
				t.Errorf("step after %s: losses %v, %v", pass, other, err)
			}
		}
		if pass == step {
			continue
		}
		dir := t.TempDir()
		if err := q.write(dir); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(dir, "lesson.f32"))
		n := 0
		for _, w := range q.lesson.weights {
			n += len(w)
		}
		if err != nil || len(raw) != 4*n {
			t.Errorf("%s: %d bytes of weights, want %d (%v)", pass, len(raw), 4*n, err)
		}
	}
}

// In 16 bits the same problem gives nearly the same results, which are compared with float32's too.
func TestPrecision(t *testing.T) {
	for _, precision := range []string{bfloat16s, float16s} {
		t.Run(precision, func(t *testing.T) { testPrecision(t, precision) })
	}
}

func testPrecision(t *testing.T, precision string) {
	defer par.SetWorkers(0)
	q := newProblem(small)
	list := own(&options{threads: 1, precision: precision})
	if len(list) != 2 || !strings.HasSuffix(list[0].name(), " "+precision) || strings.HasSuffix(list[1].name(), " "+precision) {
		t.Fatalf("competitors: %v", list)
	}
	for _, p := range list {
		for range 2 { // closing keeps the precision
			if err := p.open(q, ""); err != nil {
				t.Fatal(err)
			}
			p.close()
		}
		if err := p.open(q, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, pass := range []string{forward, train, step} {
		var both [2][]float32
		for i, p := range list {
			values, err := p.result(pass)
			if err != nil {
				t.Fatal(err)
			}
			both[i] = slices.Clone(values)
		}
		if d := q.difference(pass, both[0], both[1]); d == 0 || !(d <= allowed[precision].of(pass)) {
			t.Errorf("%s: it is %g from float32", pass, d)
		}
	}
}

func TestOptions(t *testing.T) {
	for precision, n := range map[string]int{float32s: 8, bfloat16s: 5, float16s: 5} {
		o := &options{threads: 2, rounds: 3, shapes: list{"A"}, precision: precision, ort: "x"}
		if err := o.check(nil); err != nil || len(o.passes) != n || o.python[0] != "python3" {
			t.Errorf("%+v: %v", o, err)
		}
	}
	for _, bad := range []options{
		{threads: 0, rounds: 1, precision: float32s}, {threads: 1, rounds: 1, precision: float32s, shapes: list{"Z"}}, {threads: 1, rounds: 1, precision: float32s, passes: list{"backward"}},
		{threads: 1, rounds: 1, precision: bfloat16s, passes: list{vanish}}, {threads: 1, rounds: 1, precision: "int8"},
	} {
		if bad.check(nil) == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func TestPythonEnv(t *testing.T) {
	env := []string{"OPENBLAS_CORETYPE=Haswell", "OPENBLAS_L2_SIZE=1", "HOME=/x"}
	if got := pythonEnv("/usr/bin/python3", slices.Clone(env)); len(got) != 3 {
		t.Errorf("the system's Python: %v", got)
	}
	if got := pythonEnv("venv/bin/python", slices.Clone(env)); !slices.Equal(got, []string{"HOME=/x"}) {
		t.Errorf("another Python: %v", got)
	}
}

// fields splits a message, failing the test where it is malformed.
func fields(t *testing.T, m []byte) map[protowire.Number][][]byte {
	t.Helper()
	out := map[protowire.Number][][]byte{}
	for len(m) > 0 {
		num, typ, n := protowire.ConsumeTag(m)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		m = m[n:]
		if n = protowire.ConsumeFieldValue(num, typ, m); n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		value := m[:n]
		if typ == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(m)
		}
		out[num] = append(out[num], value)
		m = m[n:]
	}
	return out
}

func TestONNXModel(t *testing.T) {
	q := newProblem(small)
	graph := fields(t, fields(t, onnxModel(small, q.weights))[7][0])
	if len(graph[1]) != 2*small.L || len(graph[5]) != 1+3*small.L {
		t.Fatalf("%d nodes, %d constants", len(graph[1]), len(graph[5]))
	}
	constants := map[string][]float32{}
	for _, c := range graph[5] {
		f := fields(t, c)
		constants[string(f[8][0])] = floatsOf(f[9][0])
	}
	// Output gate: fourth of PyTorch's blocks, second of ONNX's.
	n := small.H * small.Input(0)
	if !slices.Equal(constants["W0"][n:2*n], q.weights[0][3*n:]) {
		t.Error("the output gate of W0 is elsewhere")
	}
	if b := constants["B1"]; len(b) != 8*small.H || b[0] != q.weights[6][0] || b[4*small.H] != q.weights[7][0] {
		t.Errorf("B1 has %d elements", len(b))
	}
	if lstm := fields(t, graph[1][2]); string(lstm[4][0]) != "LSTM" || string(lstm[1][0]) != "y0" || string(lstm[1][1]) != "W1" {
		t.Errorf("second layer: %q", lstm)
	}
}
