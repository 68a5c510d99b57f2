package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/audio/detect/detecttest"
	"github.com/carousel-ml/carousel/internal/npy"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/model/onnx/graph"
)

// TestMain lets the test binary be the command, for the scripts to run.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"carousel": func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScenarios runs the scripts in testdata, each in a directory of its own
// that holds its files, with the commands of testscript and these:
//
//	exits N carousel ARG... the command fails with this exit code and one line on stderr
//	json PATH [VALUE]       stdout is one JSON object, as docs/json.md says, that has PATH (a.b.0.c), with that value
//	series FILE N [KIND]    write N hours of a made-up series: daily (default), constant or walk
//	panel FILE ID=N[+M]...  write series of N days, and M more without the target, beside covariates
//	tones FILE LETTERS      write a WAV file with a tone for each letter
//	graph FILE KIND         write an ONNX graph: sums (of what comes in, with a state), loose (the same with a state of any shape), types (of inputs) or strange (not supported)
//	rnnoise FILE            write a small network of RNNoise's format, with random weights
//	detectors DIR           write small models of speech, DIR/vad.onnx, and of words, DIR/words
//	pronouncer FILE         write a network of g2p-en's form that pronounces each word as K
//	server ARG...           start carousel serve until the end of the script; $HTTP and $GRPC are its addresses
//	truncate FILE N         keep the first N bytes
//	alter FILE N            flip a bit of byte N; a negative N counts from the end
//	replace FILE OLD NEW    change a file's text
//
// $MODEL is the directory of package model, for other programs' files in its testdata.
func TestScenarios(t *testing.T) {
	model, err := filepath.Abs("../../model")
	if err != nil {
		t.Fatal(err)
	}
	cmds := map[string]func(*testscript.TestScript, bool, []string){}
	for name, c := range map[string]struct {
		min, max int // arguments
		run      func(*testscript.TestScript, []string)
	}{
		"exits": {2, math.MaxInt, exits},
		"json":  {1, 2, checkJSON},
		"series": {2, 3, func(ts *testscript.TestScript, args []string) {
			write(ts, args[0], madeUp(integer(ts, args[1]), strings.Join(args[2:], "")))
		}},
		"panel":      {2, math.MaxInt, func(ts *testscript.TestScript, args []string) { write(ts, args[0], panel(ts, args[1:])) }},
		"tones":      {2, 2, func(ts *testscript.TestScript, args []string) { write(ts, args[0], tones(args[1])) }},
		"graph":      {2, 2, func(ts *testscript.TestScript, args []string) { write(ts, args[0], onnxGraph(args[1])) }},
		"rnnoise":    {1, 1, func(ts *testscript.TestScript, args []string) { write(ts, args[0], rnnoise()) }},
		"detectors":  {1, 1, func(ts *testscript.TestScript, args []string) { ts.Check(writeDetectors(ts.MkAbs(args[0]))) }},
		"pronouncer": {1, 1, func(ts *testscript.TestScript, args []string) { write(ts, args[0], pronouncer()) }},
		"server":     {1, math.MaxInt, beginServer},
		"truncate": {2, 2, func(ts *testscript.TestScript, args []string) {
			write(ts, args[0], []byte(ts.ReadFile(args[0])[:integer(ts, args[1])]))
		}},
		"alter":   {2, 2, alter},
		"replace": {3, 3, replace},
	} {
		cmds[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) < c.min || len(args) > c.max {
				ts.Fatalf("%s takes %d to %d arguments and no !", name, c.min, c.max)
			}
			c.run(ts, args)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("MODEL", model)
			e.Setenv(simd.EnvVar, os.Getenv(simd.EnvVar))
			return nil
		},
		Cmds:               cmds,
		RequireUniqueNames: true,
	})
}

func write(ts *testscript.TestScript, name string, text []byte) {
	ts.Check(os.WriteFile(ts.MkAbs(name), text, 0o600))
}

func integer(ts *testscript.TestScript, text string) int {
	n, err := strconv.Atoi(text)
	ts.Check(err)
	return n
}

func exits(ts *testscript.TestScript, args []string) {
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); !errors.As(err, &exit) || exit.ExitCode() != integer(ts, args[0]) {
		ts.Fatalf("want exit code %s, got: %v", args[0], err)
	}
	if text := ts.ReadFile("stderr"); strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "carousel: ") {
		ts.Fatalf("want one line on stderr that begins with \"carousel: \"")
	}
}

func alter(ts *testscript.TestScript, args []string) {
	text, n := []byte(ts.ReadFile(args[0])), integer(ts, args[1])
	if n < 0 {
		n += len(text)
	}
	text[n] ^= 1
	write(ts, args[0], text)
}

func replace(ts *testscript.TestScript, args []string) {
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	write(ts, args[0], []byte(strings.ReplaceAll(text, args[1], args[2])))
}

func checkJSON(ts *testscript.TestScript, args []string) {
	doc, err := readJSONPage()
	ts.Check(err)
	_, _, err = doc.check(ts.ReadFile("stdout"))
	ts.Check(err)
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
	for key := range strings.SplitSeq(args[0], ".") {
		found := false
		switch at := v.(type) {
		case map[string]any:
			v, found = at[key]
		case []any:
			if i, err := strconv.Atoi(key); err == nil && i < len(at) {
				v, found = at[i], true
			}
		}
		if !found {
			ts.Fatalf("no %q in the JSON", args[0])
		}
	}
	if len(args) == 2 && fmt.Sprint(v) != args[1] {
		ts.Fatalf("%s is %v, want %s", args[0], v, args[1])
	}
}

// onnxGraph is an ONNX graph of a kind.
func onnxGraph(kind string) []byte {
	g := &graph.Builder{}
	switch kind {
	case "sums", "loose": // y = h + scale * x, which is the next h
		g.Input("x", "", "batch", 2)
		if kind == "sums" {
			g.Input("h", "", "batch", 2)
		} else {
			g.Input("h", "", "a", "b")
		}
		g.InputOf(graph.Int64, "scale", "")
		scale := g.Op("Cast", []string{"scale"}, graph.Attr{Name: "to", Value: int(graph.Float32)})
		g.Node("Add", []string{"h", g.Op("Mul", []string{"x", scale})}, []string{"y"})
		g.Node("Identity", []string{"y"}, []string{"hn"})
		g.Output("y", "", "batch", 2)
		g.Output("hn", "", "batch", 2)
	case "linear": // y = x·w
		g.Input("x", "", "batch", 64)
		w := make([]float32, 64*32)
		for i := range w {
			w[i] = float32(i%13) - 6
		}
		g.Node("MatMul", []string{"x", g.Floats("w", w, 64, 32)}, []string{"y"})
		g.Output("y", "", "batch", 32)
	case "types": // each as it came in
		const u8 = 2
		for i, dtype := range []int64{graph.Float32, graph.Int32, graph.Int64, u8, graph.Bool} {
			name := "filub"[i : i+1]
			g.InputOf(dtype, name, "", "n")
			g.Node("Identity", []string{name}, []string{name + "_same"})
			g.OutputOf(dtype, name+"_same", "", "n")
		}
	case "strange":
		g.Input("x", "", "batch", 2)
		g.Node("Guess", []string{"x"}, []string{"a"})
		g.Node("Neg", []string{"a"}, []string{"b"})
		g.Node("Wonder", []string{"b"}, []string{"y"})
		g.Output("y", "", "batch", 2)
	default:
		panic("unknown kind of graph " + kind)
	}
	return g.Encode()
}

// tones is a WAV file: a tone for each letter, one for each of a to e, after a
// little silence.
func tones(letters string) []byte {
	s := &audio.Sound{Rate: 8000}
	for _, c := range letters {
		s.Samples = append(s.Samples, make([]float32, 400)...)
		hz := 500 * math.Pow(1.5, float64(c-'a'))
		for i := range 800 {
			s.Samples = append(s.Samples, float32(0.3*math.Sin(2*math.Pi*hz*float64(i)/8000)))
		}
	}
	var b bytes.Buffer
	if err := audio.WriteWAV(&b, s); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// rnnoise is a network of audio/denoise with four units a layer.
func rnnoise() (b []byte) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, l := range []struct{ in, units, activation, weights int }{
		{42, 4, 0, 42 * 4}, {4, 4, 2, (4 + 4) * 12}, {50, 4, 2, (50 + 4) * 12}, {50, 4, 2, (50 + 4) * 12}, {4, 22, 1, 4 * 22}, {4, 1, 1, 4},
	} {
		biases := l.units
		if l.activation == 2 {
			biases *= 3
		}
		b = append(b, byte(l.in), byte(l.units), byte(l.activation))
		for range l.weights + biases {
			b = append(b, byte(r.IntN(64)-32))
		}
	}
	return b
}

// writeDetectors writes models for detect-speech and detect-words.
func writeDetectors(dir string) error {
	words := filepath.Join(dir, "words")
	if err := os.MkdirAll(words, 0o700); err != nil {
		return err
	}
	return errors.Join(detecttest.Speech(filepath.Join(dir, "vad.onnx")), detecttest.Words(words))
}

// pronouncer is a network of text/g2p with one unit, which is positive after the beginning
// and negative after K: so it says K and then the end.
func pronouncer() []byte {
	const k, begin, end = 45, 2, 3 // ids
	at := func(n int, values map[int]float32) []float32 {
		v := make([]float32, n)
		for i, x := range values {
			v[i] = x
		}
		return v
	}
	gru := at(3, map[int]float32{1: -20}) // the update gate takes the new value
	var names []string
	var arrays []*npy.Array
	for _, a := range []struct {
		name   string
		values []float32
		dims   []int
	}{
		{"enc_emb", at(29, nil), []int{29, 1}}, {"enc_w_ih", at(3, nil), []int{3, 1}}, {"enc_w_hh", at(3, nil), []int{3, 1}}, {"enc_b_ih", at(3, nil), []int{3}}, {"enc_b_hh", at(3, nil), []int{3}},
		{"dec_emb", at(74, map[int]float32{begin: 5, k: -5}), []int{74, 1}}, {"dec_w_ih", at(3, map[int]float32{2: 1}), []int{3, 1}}, {"dec_w_hh", at(3, nil), []int{3, 1}}, {"dec_b_ih", gru, []int{3}}, {"dec_b_hh", at(3, nil), []int{3}},
		{"fc_w", at(74, map[int]float32{k: 1, end: -1}), []int{74, 1}}, {"fc_b", at(74, nil), []int{74}},
	} {
		one := &npy.Array{Type: "f4", Dims: a.dims}
		for _, v := range a.values {
			one.Data = binary.LittleEndian.AppendUint32(one.Data, math.Float32bits(v))
		}
		names, arrays = append(names, a.name), append(arrays, one)
	}
	var b bytes.Buffer
	if err := npy.WriteArchive(&b, names, arrays); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// panel is a CSV of days of several series: the target y, and beside it x, known
// ahead, and size and region, constant in a series. A series depends on its name
// alone.
func panel(ts *testscript.TestScript, series []string) []byte {
	var b bytes.Buffer
	b.WriteString("time,id,y,x,size,region\n")
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, s := range series {
		id, rows, _ := strings.Cut(s, "=")
		rows, ahead, _ := strings.Cut(rows, "+")
		known := integer(ts, rows)
		n, code := known+integer(ts, "0"+ahead), int(id[0])
		for i := range n {
			y := ""
			if i < known {
				y = fmt.Sprintf("%.3f", float64(code)+5*math.Sin(2*math.Pi*float64(i)/7)+float64((i*i*code)%11)/10)
			}
			fmt.Fprintf(&b, "%s,%s,%s,%d,%d.5,%s\n", start.AddDate(0, 0, i).Format(time.DateOnly), id, y, i%7, code%5, []string{"north", "south"}[code%2])
		}
	}
	return b.Bytes()
}

// madeUp is a CSV of hours: a daily wave with a little noise, a constant, or a
// random walk, beside a covariate x.
func madeUp(n int, kind string) []byte {
	var b bytes.Buffer
	b.WriteString("time,y,x\n")
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	state, walk := uint32(1), 0.0
	noise := func() float64 { // in [-1, 1)
		state = state*1664525 + 1013904223
		return float64(state)/(1<<31) - 1
	}
	if !slices.Contains([]string{"", "daily", "constant", "walk"}, kind) {
		panic("unknown kind of series " + kind)
	}
	for i := range n {
		walk += noise()
		y := 100 + 10*math.Sin(2*math.Pi*float64(i)/24) + noise()
		switch kind {
		case "constant":
			y = 5
		case "walk":
			y = walk
		}
		fmt.Fprintf(&b, "%s,%.3f,%.3f\n", start.Add(time.Duration(i)*time.Hour).Format("2006-01-02T15:04:05"), y, noise())
	}
	return b.Bytes()
}
