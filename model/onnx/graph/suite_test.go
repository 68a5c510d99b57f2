package graph

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/carousel-ml/carousel/model"
)

// knownDifferences are cases whose outputs differ from those of the suite, and why
// that is right here.
var knownDifferences = map[string]string{
	// The suite's reference takes scale times size for the size of the result, 3.2 elements;
	// ONNX Runtime and PyTorch take 3.
	"test_resize_downsample_scales_cubic_align_corners":  "sizes are whole numbers",
	"test_resize_downsample_scales_linear_align_corners": "sizes are whole numbers",
}

// suiteStore holds cases that run without Python: the smallest of each operator, those
// of the onnx package before random ones.
// TestSuite writes it with -record.
const (
	suiteStore  = "testdata/suite.tar.gz"
	storedCases = 3
	storedBytes = 6000 // of all files of a case
)

// TestSuite runs the graphs that internal/golden/gen/onnx_suite.py wrote, with inputs
// and outputs by the onnx package and by ONNX Runtime. A graph that runs must agree. One
// may be refused; where the graph is a single node of a supported operator, docs/peers.md
// has to list the operator.
func TestSuite(t *testing.T) {
	dir := os.Getenv("CAROUSEL_ONNX_SUITE")
	if dir == "" {
		t.Skip("CAROUSEL_ONNX_SUITE names no folder of cases")
	}
	listed, err := os.ReadFile("../../../docs/peers.md")
	if err != nil {
		t.Fatal(err)
	}
	fsys := os.DirFS(dir)
	store := map[string][]string{}
	for _, kind := range []string{"backend", "operators", "recurrent"} {
		cases, err := fs.ReadDir(fsys, kind)
		if err != nil {
			t.Fatal(err)
		}
		right, refused := map[string]int{}, map[string]map[string]int{}
		for _, c := range cases {
			name := kind + "/" + c.Name()
			op := suiteOperator(t, fsys, name)
			switch problem, why := runCase(fsys, name); {
			case why != "":
				if refused[op] == nil {
					refused[op] = map[string]int{}
				}
				refused[op][why]++
			case problem == "":
				right[op]++
				if *record && !slices.Contains([]string{"LSTM", "GRU", "RNN", "several"}, op) && caseSize(t, fsys, name) < storedBytes {
					store[op] = append(store[op], name)
				}
			case knownDifferences[c.Name()] == "":
				t.Errorf("%s: %s", name, problem)
			}
		}
		var lines []string
		n := 0
		for op, count := range right {
			if refused[op] == nil {
				lines = append(lines, fmt.Sprintf("%s: %d right", op, count))
			}
			n += count
		}
		for op, whys := range refused {
			line := fmt.Sprintf("%s: %d right", op, right[op])
			for why, count := range whys {
				line += fmt.Sprintf(", %d refused (%s)", count, why)
			}
			lines = append(lines, line)
			if operators[op] != nil && kind == "backend" && !strings.Contains(string(listed), "| "+op+" |") {
				t.Errorf("docs/peers.md does not list %s", line)
			}
		}
		slices.Sort(lines)
		t.Logf("%s: %d of %d cases right\n%s", kind, n, len(cases), strings.Join(lines, "\n"))
		if n < len(cases)/4 {
			t.Errorf("%s: only %d of %d cases run", kind, n, len(cases))
		}
	}
	if *record {
		var cases []string
		for _, op := range slices.Sorted(maps.Keys(store)) {
			list := store[op]
			slices.SortStableFunc(list, func(a, b string) int {
				return cmp.Or(strings.Compare(path.Dir(a), path.Dir(b)), caseSize(t, fsys, a)-caseSize(t, fsys, b))
			})
			cases = append(cases, list[:min(storedCases, len(list))]...)
		}
		writeStore(t, fsys, cases)
	}
}

// suiteOperator returns the operator of a case of one node, otherwise "several".
func suiteOperator(t *testing.T, fsys fs.FS, dir string) string {
	ops := caseOperators(t, fsys, dir)
	if len(ops) == 1 || len(ops) > 0 && slices.Contains([]string{"Loop", "If", "Scan"}, ops[0]) {
		return ops[0]
	}
	return "several"
}

// caseOperators lists the operators of a case, those of graphs in nodes after their node.
func caseOperators(t *testing.T, fsys fs.FS, dir string) (ops []string) {
	b, err := fs.ReadFile(fsys, dir+"/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	p, err := decodeModel(b)
	if err != nil {
		t.Fatal(err)
	}
	var list func(g *graphProto)
	list = func(g *graphProto) {
		for _, n := range g.nodes {
			ops = append(ops, strings.TrimPrefix(n.domain+"."+n.op, "."))
			for _, a := range n.attrs {
				if a.graph != nil {
					list(a.graph)
				}
			}
		}
	}
	list(p.graph)
	return ops
}

func caseSize(t *testing.T, fsys fs.FS, dir string) (size int) {
	files, err := fs.ReadDir(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += int(info.Size())
	}
	return size
}

func writeStore(t *testing.T, fsys fs.FS, cases []string) {
	var b bytes.Buffer
	zipped := gzip.NewWriter(&b)
	w := tar.NewWriter(zipped)
	for _, dir := range cases {
		files, err := fs.ReadDir(fsys, dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			data, err := fs.ReadFile(fsys, dir+"/"+f.Name())
			if err == nil {
				err = w.WriteHeader(&tar.Header{Name: dir + "/" + f.Name(), Size: int64(len(data)), Mode: 0o644})
			}
			if err == nil {
				_, err = w.Write(data)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(suiteStore, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
}

// forEachStored calls visit for the stored cases.
func forEachStored(t testing.TB, visit func(fsys fs.FS, dir string)) {
	t.Helper()
	f, err := os.Open(suiteStore)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	fsys := fstest.MapFS{}
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		fsys[h.Name] = &fstest.MapFile{Data: data}
	}
	cases, err := fs.Glob(fsys, "*/*")
	if err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	for _, c := range cases {
		visit(fsys, c)
	}
}

// storedOperators are the operators that TestStored and TestFlushStored run.
func storedOperators(t *testing.T) map[string]bool {
	found := map[string]bool{}
	forEachStored(t, func(fsys fs.FS, dir string) {
		for _, op := range caseOperators(t, fsys, dir) {
			found[op] = true
		}
	})
	return found
}

// TestStored runs the node cases of the onnx package that are stored here.
func TestStored(t *testing.T) {
	forEachStored(t, func(fsys fs.FS, dir string) {
		t.Run(dir, func(t *testing.T) {
			if problem, why := runCase(fsys, dir); problem+why != "" {
				t.Error(problem + why)
			}
		})
	})
}

// TestFlushStored runs them with numbers on both sides of 2^-126.
func TestFlushStored(t *testing.T) {
	forEachStored(t, func(fsys fs.FS, dir string) {
		t.Run(dir, func(t *testing.T) {
			m, inputs, err := readCase(fsys, dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range []int{-126, -63, 7} {
				in := scaled(inputs, e)
				if _, err := m.Run(in); err == nil { // some inputs are lengths or bounds
					watch(t, m, in)
				}
			}
		})
	})
}

// particular matches what differs between refusals of the same kind.
var particular = regexp.MustCompile(`"[^"]*"|\[[^]]*\]|[0-9]+`)

// runCase runs one case; why is the reason for which it was refused.
func runCase(fsys fs.FS, dir string) (problem, why string) {
	refusal := func(err error) string {
		_, text, _ := strings.Cut(err.Error(), "model.onnx: ")
		if i := strings.Index(text, "operator "); i >= 0 {
			return strings.Fields(text[i:])[0] + " " + strings.Fields(text[i:])[1]
		}
		return particular.ReplaceAllString(text, "N")
	}
	m, inputs, err := readCase(fsys, dir)
	var fe *model.FileError
	if errors.As(err, &fe) {
		return "", refusal(err)
	}
	if err != nil {
		return "", err.Error()
	}
	got, err := runs(m, inputs)
	if errors.Is(err, errReplay) {
		return err.Error(), ""
	}
	if err != nil {
		return "", "running: " + refusal(err)
	}
	for i, info := range m.outputs {
		want, err := readTensor(fsys, fmt.Sprintf("%s/%d.out.pb", dir, i))
		if err != nil {
			return "", err.Error()
		}
		if problem := unlike(got[info.Name], want, tolerance(info.Type)); problem != "" {
			return fmt.Sprintf("output %s: %s", info.Name, problem), ""
		}
	}
	return "", ""
}

// readCase reads the model and the inputs of a case.
func readCase(fsys fs.FS, dir string) (*Model, map[string]Value, error) {
	b, err := fs.ReadFile(fsys, dir+"/model.onnx")
	if err != nil {
		return nil, nil, err
	}
	m, err := parse("model.onnx", b)
	if err != nil {
		return nil, nil, err
	}
	inputs := map[string]Value{}
	for i, info := range m.inputs {
		if inputs[info.Name], err = readTensor(fsys, fmt.Sprintf("%s/%d.in.pb", dir, i)); err != nil {
			return nil, nil, err
		}
	}
	return m, inputs, nil
}

// tolerance is relative to values above 1: that of the type of an output, which is
// computed in float32 here.
func tolerance(typ string) float64 {
	switch typ {
	case "float16":
		return 2e-3
	case "bfloat16":
		return 2e-2
	}
	return 1e-4
}

func readTensor(fsys fs.FS, path string) (Value, error) {
	b, err := fs.ReadFile(fsys, path)
	if err != nil {
		return Value{}, err
	}
	var m modelProto
	var p tensorProto
	if err := m.decodeTensor(&p, b); err != nil {
		return Value{}, err
	}
	v, problem := p.constant("")
	if problem != "" {
		return Value{}, errors.New(problem)
	}
	return Value{Dims: v.dims, Data: v.host, Ints: v.ints}, nil
}

// unlike describes the first difference of two values.
func unlike(got, want Value, tolerance float64) string {
	if !slices.Equal(got.Dims, want.Dims) && len(got.Dims)+len(want.Dims) > 0 {
		return fmt.Sprintf("shape %v, want %v", got.Dims, want.Dims)
	}
	if len(got.Data) != len(want.Data) || !slices.Equal(got.Ints, want.Ints) {
		return fmt.Sprintf("%v %v, want %v %v", got.Data, got.Ints, want.Data, want.Ints)
	}
	for i, w := range want.Data {
		g, w := float64(got.Data[i]), float64(w)
		if g == w || math.IsNaN(g) && math.IsNaN(w) || math.Abs(g-w) <= tolerance*math.Max(1, math.Abs(w)) {
			continue
		}
		if math.Abs(w) < 0x1p-126 && g == 0 {
			continue // subnormal numbers are zero here
		}
		return fmt.Sprintf("element %d is %v, want %v", i, g, w)
	}
	return ""
}
