package graph

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Runtime is an installation of ONNX Runtime for Node.js (npm's
// onnxruntime-node), an independent implementation for comparisons.
type Runtime struct {
	Version string // such as "ONNX Runtime 1.20.0"

	node string // the node program
	dir  string // the directory that has node_modules
}

//go:embed runtime.mjs
var runtimeScript string

// FindRuntime looks for onnxruntime-node in the node_modules of the directory
// that the environment variable CAROUSEL_ORT_DIR names, or of bench/peers in the
// working directory or one above it. It returns nil if there is none, if there is
// no node program, or if CAROUSEL_ORT_DIR is "off".
func FindRuntime() *Runtime {
	named := os.Getenv("CAROUSEL_ORT_DIR")
	if named == "off" {
		return nil
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return nil
	}
	dirs := []string{named}
	if wd, err := os.Getwd(); err == nil {
		for d := wd; ; d = filepath.Dir(d) {
			dirs = append(dirs, filepath.Join(d, "bench", "peers"))
			if d == filepath.Dir(d) {
				break
			}
		}
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, "node_modules", "onnxruntime-node", "package.json"))
		if err != nil {
			continue
		}
		var p struct {
			Version string `json:"version"`
		}
		if json.Unmarshal(raw, &p) == nil {
			return &Runtime{Version: "ONNX Runtime " + p.Version, node: node, dir: dir}
		}
	}
	return nil
}

// wireValue is an array that is passed to and from the script, as little-endian
// bytes.
type wireValue struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Dims []int  `json:"dims"`
	Data string `json:"data"` // base64
}

// Run computes the outputs of a file's bytes, whose graph is m, from inputs of
// types float32, int64, int32 and bool. An input that is missing or of another
// type, and a failed run, are errors; that of a failed run has the message of
// ONNX Runtime. A cancelled ctx ends the run and returns its error.
func (rt *Runtime) Run(ctx context.Context, file []byte, m *Model, inputs map[string]Value) (map[string]Value, error) {
	request := struct {
		Model  string      `json:"model"`
		Path   string      `json:"path"` // instead of Model, with data in other files
		Inputs []wireValue `json:"inputs"`
		Level  string      `json:"level"` // of optimizations
	}{Level: "all"}
	if m.resting() { // higher levels let MatMul round its other operand too
		request.Level = "basic"
	}
	if m.external != nil {
		path, err := filepath.Abs(m.path)
		if err != nil {
			return nil, err
		}
		request.Path = path
	} else {
		request.Model = base64.StdEncoding.EncodeToString(file)
	}
	for _, info := range m.inputs {
		v := inputs[info.Name]
		w := wireValue{Name: info.Name, Type: info.Type, Dims: append([]int{}, v.Dims...)}
		raw, err := pack(info.Type, v)
		if err != nil {
			return nil, fmt.Errorf("onnx: input %s: %w", info, err)
		}
		w.Data = base64.StdEncoding.EncodeToString(raw)
		request.Inputs = append(request.Inputs, w)
	}
	in, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	// The script resolves the package from the working directory.
	cmd := exec.CommandContext(ctx, rt.node, "--input-type=module", "-e", runtimeScript)
	cmd.Dir = rt.dir
	cmd.Stdin = bytes.NewReader(in)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		if stopped := ctx.Err(); stopped != nil {
			return nil, stopped
		}
		line, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		return nil, fmt.Errorf("onnx: %s: %w: %s", rt.Version, err, clip(line))
	}
	var answer []wireValue
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return nil, fmt.Errorf("onnx: %s: answer not understood: %w", rt.Version, err)
	}
	values := make(map[string]Value, len(answer))
	for _, w := range answer {
		v, err := w.value()
		if err != nil {
			return nil, fmt.Errorf("onnx: %s: output %s: %w", rt.Version, clip(w.Name), err)
		}
		values[w.Name] = v
	}
	return values, nil
}

func pack(typ string, v Value) ([]byte, error) {
	var b []byte
	le := binary.LittleEndian
	switch typ {
	case "float32":
		for _, x := range v.Data {
			b = le.AppendUint32(b, math.Float32bits(x))
		}
	case "int64":
		for _, x := range v.Ints {
			b = le.AppendUint64(b, uint64(x))
		}
	case "int32":
		for _, x := range v.Ints {
			b = le.AppendUint32(b, uint32(x))
		}
	case "bool":
		for _, x := range v.Ints {
			b = append(b, byte(x))
		}
	default:
		return nil, fmt.Errorf("type %s cannot be passed on", typ)
	}
	return b, nil
}

func (w *wireValue) value() (Value, error) {
	raw, err := base64.StdEncoding.DecodeString(w.Data)
	if err != nil {
		return Value{}, err
	}
	types := map[string]int64{"float32": typeFloat, "int64": typeInt64, "int32": typeInt32, "bool": typeBool}
	dtype, ok := types[w.Type]
	if !ok {
		return Value{}, fmt.Errorf("type %q", clip(w.Type))
	}
	t := tensorProto{dtype: dtype, raw: raw}
	for _, d := range w.Dims {
		t.dims = append(t.dims, int64(d))
	}
	v, problem := t.constant("")
	if problem != "" {
		return Value{}, fmt.Errorf("%s", problem)
	}
	return Value{Dims: v.dims, Data: v.host, Ints: v.ints}, nil
}
