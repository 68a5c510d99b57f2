package graph

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
)

// small is a sound graph: y = Relu(x + one).
func small() *Builder {
	g := &Builder{}
	g.InputOf(typeFloat, "x", "", "n", 3)
	g.Floats("one", []float32{1, 1, 1}, 3)
	g.Node("Add", []string{"x", "one"}, []string{"s"})
	g.Node("Relu", []string{"s"}, []string{"y"})
	g.output("y", "", typeFloat, "n", 3)
	return g
}

func rawTensor(name string, dtype int64, raw []byte, dims ...int64) []byte {
	var b []byte
	for _, d := range dims {
		b = appendInt(b, 1, d)
	}
	return appendBytes(appendText(appendInt(b, 2, dtype), 8, name), 9, raw)
}

// TestRefused reads files that are wrong: each is a *model.FileError of one line
// that says what it is about.
func TestRefused(t *testing.T) {
	with := func(change func(g *Builder)) []byte {
		g := small()
		change(g)
		return g.encode("g", 8, 17)
	}
	initializer := func(b []byte) []byte {
		return with(func(g *Builder) { g.initializers = append(g.initializers, b) })
	}
	lstm := func(w, r, b []int, attrs ...Attr) []byte {
		var g Builder
		zeros := func(name string, dims []int) string { return g.Floats(name, make([]float32, product(dims)), dims...) }
		g.InputOf(typeFloat, "x", "", "t", "b", 2)
		g.Node("LSTM", []string{"x", zeros("W", w), zeros("R", r), zeros("B", b)}, []string{"y"}, attrs...)
		g.output("y", "", typeFloat, "t", 1, "b", 3)
		return g.encode("g", 8, 17)
	}
	for name, c := range map[string]struct {
		file []byte
		want []string
	}{
		"empty":    {nil, []string{"no graph"}},
		"text":     {[]byte("not an ONNX file at all, but some text\n"), []string{"not an ONNX model"}},
		"old":      {small().encode("g", 3, 6), []string{"operator set 7 to 28", "got 6"}},
		"new":      {small().encode("g", 8, 999), []string{"got 999"}},
		"operator": {with(func(g *Builder) { g.Node("NonMaxSuppression", []string{"s"}, []string{"z"}) }), []string{"operator NonMaxSuppression", "NonMaxSuppression_z", "not supported"}},
		"several": {with(func(g *Builder) {
			g.Node("NonMaxSuppression", []string{"s"}, []string{"z"})
			g.Node("Pad", []string{"z"}, []string{"p"}, Attr{"mode", "mirror"})
			g.Node("NonMaxSuppression", []string{"p"}, []string{"q"})
			g.initializers = append(g.initializers, rawTensor("w", 17, nil, 0))
		}), []string{"operator NonMaxSuppression (2 places, the first is node NonMaxSuppression_z)", `attribute mode="mirror" of Pad (node Pad_p)`, "type float8e4m3fn (tensor w)"}},
		"cycle": {with(func(g *Builder) {
			g.Node("Add", []string{"b", "x"}, []string{"a"})
			g.Node("Relu", []string{"a"}, []string{"b"})
		}), []string{"Relu_b", `"a"`, "cycle"}},
		"self":                {with(func(g *Builder) { g.Node("Relu", []string{"a"}, []string{"a"}) }), []string{"Relu_a", "cycle"}},
		"nothing makes":       {with(func(g *Builder) { g.Node("Relu", []string{"ghost"}, []string{"a"}) }), []string{`"ghost"`, "nothing makes"}},
		"twice made":          {with(func(g *Builder) { g.Node("Relu", []string{"x"}, []string{"s"}) }), []string{`"s"`, "already taken"}},
		"twice initialized":   {with(func(g *Builder) { g.Floats("one", []float32{1}, 1) }), []string{`"one"`, "already taken"}},
		"twice input":         {with(func(g *Builder) { g.InputOf(typeFloat, "x", "", 1) }), []string{`"x"`, "already taken"}},
		"over an initializer": {with(func(g *Builder) { g.Node("Relu", []string{"x"}, []string{"one"}) }), []string{`"one"`, "already taken"}},
		"attribute twice": {with(func(g *Builder) {
			g.Node("Elu", []string{"x"}, []string{"z"}, Attr{"alpha", float32(1)}, Attr{"alpha", float32(2)})
		}), []string{"Elu_z", `"alpha"`, "twice"}},
		"too few inputs":   {with(func(g *Builder) { g.Node("Add", []string{"x"}, []string{"z"}) }), []string{"Add_z", "1 inputs"}},
		"output":           {with(func(g *Builder) { g.output("ghost", "", typeFloat) }), []string{`"ghost"`, "no node"}},
		"external":         {initializer(appendInt(rawTensor("w", typeFloat, nil, 3), 14, 1)), []string{"tensor w", "external_data=False"}},
		"external entries": {initializer(appendBytes(rawTensor("w", typeFloat, nil, 3), 13, []byte{})), []string{"tensor w", "external_data=False"}},
		"huge":             {initializer(rawTensor("w", typeFloat, []byte{1, 2, 3, 4}, 1<<40, 1<<40)), []string{"tensor w", "too large"}},
		"large":            {initializer(rawTensor("w", typeFloat, []byte{1, 2, 3, 4}, 1<<40)), []string{"tensor w", "4 bytes came"}},
		"negative":         {initializer(rawTensor("w", typeFloat, nil, -1)), []string{"tensor w", "no shape"}},
		"short":            {initializer(rawTensor("w", typeFloat, make([]byte, 11), 3)), []string{"tensor w", "3 elements"}},
		"no data":          {initializer(appendText(appendInt(appendInt(nil, 1, 3), 2, typeFloat), 8, "w")), []string{"tensor w", "needs 3 elements"}},
		"strings":          {initializer(rawTensor("w", 8, nil, 0)), []string{"not supported", "type string (tensor w)"}},
		"rank":             {initializer(rawTensor("w", typeFloat, nil, 0, 1, 1, 1, 1, 1, 1, 1, 1)), []string{"dimensions"}},
		"LSTM W":           {lstm([]int{1, 12, 3}, []int{1, 12, 4}, []int{1, 24}), []string{"LSTM_y", "W must be [1,16,3]", "[1,12,3]"}},
		"LSTM B":           {lstm([]int{1, 12, 2}, []int{1, 12, 3}, []int{1, 23}), []string{"LSTM_y", "B must be [1,24]", "[1,23]"}},
		"hidden":           {lstm([]int{1, 12, 2}, []int{1, 12, 3}, []int{1, 24}, Attr{"hidden_size", 4}), []string{"hidden_size is 4"}},
		"direction":        {lstm([]int{1, 12, 2}, []int{1, 12, 3}, []int{1, 24}, Attr{"direction", "up"}), []string{"LSTM_y", `"up"`}},
		"activation":       {lstm([]int{1, 12, 2}, []int{1, 12, 3}, []int{1, 24}, Attr{"activations", []string{"Sigmoid", "Tanh", "Sin"}}), []string{"LSTM_y", `"Sin"`}},
		"attribute type":   {lstm([]int{1, 12, 2}, []int{1, 12, 3}, []int{1, 24}, Attr{"clip", 1}), []string{"LSTM_y", "attribute clip"}},
		"control":          {with(func(g *Builder) { g.Node("x\n\x1b[2J", []string{"x"}, []string{"z"}) }), []string{"x??[2J"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse("m.onnx", c.file)
			checkFileError(t, err, c.want...)
		})
	}
}

func checkFileError(t *testing.T, err error, want ...string) {
	t.Helper()
	var fe *model.FileError
	if !errors.As(err, &fe) {
		t.Fatalf("error %v, want a *model.FileError", err)
	}
	if strings.ContainsAny(err.Error(), "\n\x1b") {
		t.Errorf("not one line: %q", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func TestNotRegularFiles(t *testing.T) {
	dir := t.TempDir()
	_, err := Read(filepath.Join(dir, "none.onnx"))
	checkFileError(t, err, "none.onnx", "no such file")
	_, err = Read(dir)
	checkFileError(t, err, "not a regular file")
	pipe := filepath.Join(dir, "pipe.onnx") // with no writer, which Read must not wait for
	if exec.Command("mkfifo", pipe).Run() != nil {
		t.Skip("the system makes no named pipes")
	}
	_, err = Read(pipe)
	checkFileError(t, err, "not a regular file")
}

// TestOrder: nodes may come in any order, also those that only a graph in a node reads. A
// long chain in the opposite order needs no deep stack.
func TestOrder(t *testing.T) {
	var last Builder
	last.InputOf(typeFloat, "x", "", "n")
	last.InputOf(typeBool, "c", "")
	branch := func(op string) *Builder {
		b := &Builder{}
		b.Node(op, []string{"negative"}, []string{"inner"})
		b.output("inner", "", typeFloat, "n")
		return b
	}
	addIf(&last, "c", "y", branch("Abs"), branch("Identity"))
	last.Node("Neg", []string{"more"}, []string{"negative"})
	last.Node("Add", []string{"x", "x"}, []string{"more"})
	last.output("y", "", typeFloat, "n")
	m := parsed(t, last.encode("g", 8, 17))
	for c, want := range map[int64]float32{1: 6, 0: -6} {
		out, err := runs(m, map[string]Value{"x": Floats([]float32{3}, 1), "c": Ints([]int64{c})})
		if err != nil || out["y"].Data[0] != want {
			t.Errorf("condition %d gives %v (%v), want %v", c, out["y"].Data, err, want)
		}
	}
	var chain Builder
	chain.InputOf(typeFloat, "x", "", "n")
	const length = 20000
	name := func(i int) string { return fmt.Sprint("v", i) }
	for i := length; i > 0; i-- {
		chain.Node("Neg", []string{name(i - 1)}, []string{name(i)})
	}
	chain.Node("Abs", []string{"x"}, []string{name(0)})
	chain.output(name(length), "", typeFloat, "n")
	out, err := runs(parsed(t, chain.encode("g", 8, 17)), map[string]Value{"x": Floats([]float32{-2}, 1)})
	if err != nil || out[name(length)].Data[0] != 2 {
		t.Errorf("the chain gives %v (%v), want 2", out, err)
	}
}

// TestTruncated reads every beginning of a real file: none is a model, unless
// only the last field, the operator set, is what is missing.
func TestTruncated(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "torch", "classifier.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		if _, err := parse("m.onnx", b[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are a model", n, len(b))
		}
	}
}

// TestBounded reads files that stand for far more than their own size.
func TestBounded(t *testing.T) {
	repeat := func(num int, part []byte, n int) []byte {
		var g []byte
		for range n {
			g = appendBytes(g, protowire.Number(num), part)
		}
		return appendBytes(appendInt(nil, 1, 8), 7, g)
	}
	node := func(num int, part []byte, n int) []byte {
		var b []byte
		for range n {
			b = appendBytes(b, protowire.Number(num), part)
		}
		return appendBytes(nil, 7, appendBytes(nil, 1, b))
	}
	for name, file := range map[string][]byte{
		"nodes":        repeat(1, nil, 1<<20),
		"initializers": repeat(5, nil, 1<<20),
		"inputs":       repeat(11, nil, 1<<20),
		"attributes":   node(5, nil, 1<<20),
		"names":        node(1, nil, 1<<21),
		"graphs":       []byte(strings.Repeat("\x3a\x00", 1<<20)),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			begun := time.Now()
			if _, err := parse("m.onnx", file); err == nil {
				t.Error("it is a model")
			}
			runtime.ReadMemStats(&after)
			if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
				t.Errorf("%d bytes allocated for a file of %d", used, len(file))
			}
			if d := time.Since(begun); d > 5*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

// TestRunBounded runs graphs whose values would outgrow memory.
func TestRunBounded(t *testing.T) {
	x := map[string]Value{"x": Floats([]float32{1, 2, 3}, 1, 3)}
	run := func(change func(g *Builder)) error {
		g := small()
		change(g)
		m, err := parse("m.onnx", g.encode("g", 8, 17))
		if err != nil {
			return err
		}
		m.budget = 1 << 22 // the tests' memory, not the reader's
		_, err = m.Run(x)
		return err
	}
	for name, change := range map[string]func(g *Builder){
		"expand": func(g *Builder) {
			g.Node("Expand", []string{"x", g.Ints("to", 1<<30, 1<<30, 1, 3)}, []string{"big"})
		},
		"fill":    func(g *Builder) { g.Node("ConstantOfShape", []string{g.Ints("to", 1<<31-1, 1<<31-1)}, []string{"big"}) },
		"endless": func(g *Builder) { g.Node("ConstantOfShape", []string{g.Ints("to", math.MaxInt64)}, []string{"big"}) },
		"tile":    func(g *Builder) { g.Node("Tile", []string{"x", g.Ints("to", 1<<30, 1<<30)}, []string{"big"}) },
		"scalar":  func(g *Builder) { g.Node("ConvInteger", []string{g.Floats("v", []float32{1}), "v"}, []string{"big"}) },
		"pad":     func(g *Builder) { g.Node("Pad", []string{"x", g.Ints("by", 1<<30, 1<<30, 1<<30, 0)}, []string{"big"}) },
		"resize": func(g *Builder) {
			g.Node("Resize", []string{"x", "", "", g.Ints("to", 1<<28, 1<<28)}, []string{"big"}, Attr{"mode", "cubic"})
		},
		"one hot": func(g *Builder) {
			g.Node("OneHot", []string{g.Ints("at", 1, 2, 3), g.Ints("depth", 1<<28), g.Floats("values", []float32{0, 1}, 2)}, []string{"big"})
		},
		"transform": func(g *Builder) {
			g.Node("Unsqueeze", []string{"x", g.Ints("end", 2)}, []string{"signal"})
			g.Node("DFT", []string{"signal", g.Ints("length", 1<<28)}, []string{"big"})
		},
		"loop": func(g *Builder) {
			body := &Builder{Prefix: "body"}
			body.InputOf(typeInt64, "k", "")
			body.InputOf(typeBool, "go", "")
			body.Node("Identity", []string{"go"}, []string{"on"})
			body.Node("Identity", []string{"k"}, []string{"seen"})
			body.output("on", "", typeBool)
			body.output("seen", "", typeInt64)
			g.Node("Loop", nil, []string{"big"}, Attr{"body", body})
		},
		"range": func(g *Builder) {
			g.Floats("lo", []float32{0})
			g.Floats("hi", []float32{1e30})
			g.Floats("by", []float32{1e-30})
			g.Node("Range", []string{"lo", "hi", "by"}, []string{"big"})
		},
		"doubling": func(g *Builder) {
			last := "x"
			for i := range 40 {
				next := string(rune('A' + i))
				g.Node("Concat", []string{last, last}, []string{next}, Attr{"axis", 0})
				last = next
			}
		},
	} {
		t.Run(name, func(t *testing.T) { checkFileError(t, run(change), "node ") })
	}
}

func TestRunRefusesInputs(t *testing.T) {
	m, err := parse("m.onnx", small().encode("g", 8, 17))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Inputs()[0].String(); got != "x float32[n,3]" {
		t.Errorf("input %q", got)
	}
	for want, in := range map[string]map[string]Value{
		"x float32[n,3] is missing":                {},
		"needs 6 elements, got 5":                  {"x": Floats(make([]float32, 5), 2, 3)},
		"does not fit shape [3,2]":                 {"x": Floats(make([]float32, 6), 3, 2)},
		"needs floats":                             {"x": Ints(make([]int64, 3), 1, 3)},
		`the graph has no input "z"; it has [x fl`: {"x": Floats(make([]float32, 3), 1, 3), "z": Floats(nil, 0)},
	} {
		if _, err := m.Run(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	// An empty batch is a batch.
	out, err := m.Run(map[string]Value{"x": Floats(nil, 0, 3)})
	if err != nil || shape(out["y"].Dims) != "[0,3]" {
		t.Errorf("an empty batch gives %v, %v", out, err)
	}
}

func TestConcurrentRuns(t *testing.T) {
	m, err := Read(filepath.Join("testdata", "torch", "classifier.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	in := m.Random(1, 13, nil)
	want, err := m.Run(in)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	for range 4 {
		go func() {
			for range 10 {
				got, err := m.Run(in)
				if d, _ := MaxDifference(got["y"].Data, want["y"].Data); err == nil && d != 0 {
					err = errors.New("another answer")
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// FuzzRead reads any bytes as a model and runs what is one: no panic, and no
// error but the right kind.
func FuzzRead(f *testing.F) {
	for _, pattern := range []string{"node/*.onnx", "torch/*.onnx", "scan/*.onnx", "weights/*.onnx"} { // scan: package onnx wrote them
		paths, err := filepath.Glob(filepath.Join("testdata", pattern))
		if err != nil || len(paths) == 0 {
			f.Fatal("no seeds", err)
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	for i, o := range options()[:23] {
		b, _ := o.build(uint64(i), i%2)
		f.Add(b)
	}
	for _, c := range opCases() {
		b, _ := c.build(true)
		f.Add(b)
	}
	forEachStored(f, func(fsys fs.FS, dir string) {
		b, err := fs.ReadFile(fsys, dir+"/model.onnx")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	})
	f.Add(scanGraph(Attr{"scan_input_directions", []int64{1}}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse("m.onnx", b)
		if err != nil {
			var fe *model.FileError
			if !errors.As(err, &fe) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q", err)
			}
			return
		}
		m.budget = 1 << 16
		for _, info := range m.Inputs() {
			n := 1
			for _, d := range info.Dims {
				if d.Size > 1<<8 {
					return
				}
				n *= max(d.Size, 3)
			}
			if n > 1<<12 {
				return
			}
		}
		in := m.Random(1, 2, nil)
		first, err := m.Run(in)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q", err)
			}
			return
		}
		m.Run(others(in, true)) // it may have no result
		again, err := m.Run(in)
		if err != nil {
			t.Fatal(err)
		}
		if problem := differ(first, again); problem != "" {
			t.Error(problem)
		}
		// With weights in 8 bits it is written and read as such.
		m.file = func() ([]byte, error) { return b, nil }
		resting := false
		for _, w := range m.Weights() {
			if m.SetRest(w.Name, tensor.Int8) == nil {
				resting = true
			}
		}
		small, err := m.rewritten()
		if err != nil || !resting {
			return // another tool's integers
		}
		other, err := parse("m.onnx", small)
		if err != nil {
			t.Fatal("written: ", err)
		}
		other.budget = m.budget
		if first, err = m.Run(in); err != nil {
			return
		}
		if again, err = other.Run(in); err != nil {
			t.Fatal("written: ", err)
		}
		if problem := differ(first, again); problem != "" {
			t.Error("written: ", problem)
		}
	})
}
