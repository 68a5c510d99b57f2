package graph

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/model"
)

// knownDifferences are cases whose outputs differ from those of the suite, and why
// that is right here.
var knownDifferences = map[string]string{}

// TestSuite runs the graphs that internal/golden/gen/onnx_suite.py wrote, with inputs
// and outputs by the onnx package and by ONNX Runtime. A graph may be refused, with an
// error; one that runs must agree.
func TestSuite(t *testing.T) {
	dir := os.Getenv("CAROUSEL_ONNX_SUITE")
	if dir == "" {
		t.Skip("CAROUSEL_ONNX_SUITE names no folder of cases")
	}
	for _, kind := range []string{"backend", "operators", "recurrent"} {
		cases, err := os.ReadDir(filepath.Join(dir, kind))
		if err != nil {
			t.Fatal(err)
		}
		right, refused := 0, map[string]int{}
		for _, c := range cases {
			switch problem, why := runCase(filepath.Join(dir, kind, c.Name())); {
			case why != "":
				refused[why]++
			case problem == "":
				right++
			case knownDifferences[c.Name()] == "":
				t.Errorf("%s/%s: %s", kind, c.Name(), problem)
			}
		}
		n := 0
		var reasons []string
		for why, count := range refused {
			n += count
			reasons = append(reasons, fmt.Sprintf("%4d %s", count, why))
		}
		slices.Sort(reasons)
		slices.Reverse(reasons)
		t.Logf("%s: %d cases, %d right, %d refused\n%s", kind, len(cases), right, n, strings.Join(reasons, "\n"))
		if right < len(cases)/4 {
			t.Errorf("%s: only %d of %d cases run", kind, right, len(cases))
		}
	}
}

// particular matches what differs between refusals of the same kind.
var particular = regexp.MustCompile(`"[^"]*"|\[[^]]*\]|[0-9]+`)

// runCase runs one case; why is the reason for which it was refused.
func runCase(dir string) (problem, why string) {
	refusal := func(err error) string {
		text := strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), "")
		text = strings.TrimPrefix(text, "model.onnx: ")
		if i := strings.Index(text, "operator "); i >= 0 {
			return strings.Fields(text[i:])[0] + " " + strings.Fields(text[i:])[1]
		}
		return particular.ReplaceAllString(text, "N")
	}
	m, err := Read(filepath.Join(dir, "model.onnx"))
	var fe *model.FileError
	if errors.As(err, &fe) {
		return "", refusal(err)
	}
	if err != nil {
		return err.Error(), ""
	}
	inputs := map[string]Value{}
	for i, info := range m.inputs {
		v, err := readTensor(filepath.Join(dir, fmt.Sprintf("%d.in.pb", i)))
		if err != nil {
			return "", refusal(err)
		}
		inputs[info.Name] = v
	}
	got, err := m.Run(inputs)
	if err != nil {
		return "", "running: " + refusal(err)
	}
	for i, info := range m.outputs {
		want, err := readTensor(filepath.Join(dir, fmt.Sprintf("%d.out.pb", i)))
		if err != nil {
			return "", refusal(err)
		}
		if problem := unlike(got[info.Name], want, tolerance(info.Type)); problem != "" {
			return fmt.Sprintf("output %s: %s", info.Name, problem), ""
		}
	}
	return "", ""
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

func readTensor(path string) (Value, error) {
	b, err := os.ReadFile(path)
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
