package serve

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/serve/batch"
)

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "serve.yaml")
	for name, text := range map[string]string{"serve.yaml": `# everything
http: 0.0.0.0:8080
grpc: off
hosts: [models.example.org, gateway]
device: cpu
traces: {otlp: "http://127.0.0.1:4318", ratio: 0.1}
drain: 20s
limits: {body: 64MB, timeout: 2s, unread: 5s, sessions: 1000, sessions_per_client: 10, session_bytes: 1GiB, session_ttl: 5m, connections: 500, connections_per_client: 20}
models:
  - name: "step"
    path: step.onnx
    rows: 64
    latency: 20ms
    queue: 100
    queue_per_client: 20
    share: 0.5
    states: {h: hn, c: cn}
    batch: false
    labels:
      p: [no, yes]
      q: names.txt
    session_ttl: 1h
    versions: 2
  - path: /models/run
pipelines:
  - name: both
    stages:
      - {model: step, inputs: {x: sound}, outputs: {y: z}}
      - model: run
    outputs: z
`, "names.txt": "one\r\ntwo\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadConfig(path, anyCPU)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		HTTP: "0.0.0.0:8080", GRPC: Off, Hosts: []string{"models.example.org", "gateway"}, Device: "cpu", Traces: "http://127.0.0.1:4318", TraceRatio: 0.1, Drain: 20 * time.Second,
		Limits: Limits{Body: 64e6, Timeout: 2 * time.Second, Unread: 5 * time.Second, Sessions: batch.SessionOptions{Most: 1000, Client: 10, Bytes: 1 << 30, Life: 5 * time.Minute}, Connections: 500, ConnectionsPerClient: 20},
		Models: []ModelConfig{
			{Name: "step", Path: filepath.Join(dir, "step.onnx"), Queue: batch.QueueOptions{Rows: 64, Latency: 20 * time.Millisecond, Jobs: 100, Client: 20, Share: 0.5},
				States: map[string]string{"h": "hn", "c": "cn"}, NoBatch: true, Labels: map[string][]string{"p": {"no", "yes"}, "q": {"one", "two"}}, Life: time.Hour, Versions: 2, place: path + ":10"},
			{Path: "/models/run", place: path + ":24"},
		},
		Pipelines: []PipelineConfig{{Name: "both", Outputs: []string{"z"}, place: path + ":26", Stages: []StageConfig{
			{Model: "step", Inputs: map[string]string{"x": "sound"}, Outputs: map[string]string{"y": "z"}, place: path + ":28"}, {Model: "run", place: path + ":29"}}}},
		seal: filesSeal(path, filepath.Join(dir, "names.txt")),
	}
	if !got.seal.same(want.seal) {
		t.Errorf("the files are %v", got.seal.names)
	}
	got.seal = want.seal
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if empty, err := parseConfig("a.yaml", "# nothing\n", &seal{}, nil); err != nil || !reflect.DeepEqual(empty, &Config{}) {
		t.Errorf("a file of comments: %+v, %v", empty, err)
	}
}

// Each fault is an error that names the file, the line, the key and what is expected, and
// nothing of the file is used.
func TestConfigFaults(t *testing.T) {
	for text, want := range map[string]string{
		"htpp: 1":                              `a.yaml:1: there is no key "htpp"; did you mean http?`,
		"http: a":                              `a.yaml:1: http: expected an address such as 127.0.0.1:8080, or off, got "a"`,
		"'http': off\nhttp: off":               `a.yaml:2: `,
		"grpc: 127.0.0.1:99999":                `a.yaml:1: grpc: expected an address`,
		"grpc: [1]":                            `a.yaml:1: grpc: expected an address`,
		"grpc: off\ngrpc: off":                 `a.yaml:2`,
		"hosts: []":                            `a.yaml:1: hosts: expected a text or a list of texts, got an empty list`,
		"hosts: [a, 'b:80']":                   `a.yaml:1: hosts: expected the name of a host without a port, such as models.example.org, or * for any, got "b:80"`,
		"device: gpu":                          `a.yaml:1: device: expected cpu, got "gpu"`,
		"traces:\n  otlp: 127.0.0.1:4318":      `a.yaml:2: traces.otlp: expected the URL of a receiver of OTLP over HTTP, such as http://127.0.0.1:4318`,
		"traces:\n  otlp: ftp://a":             `a.yaml:2: traces.otlp: expected the URL`,
		"traces:\n  ratio: 0":                  `a.yaml:2: traces.ratio: expected a number above 0, at most 1, got "0"`,
		"traces:\n  ratio: 1.5":                `a.yaml:2: traces.ratio: expected a number above 0`,
		"drain: 10":                            `a.yaml:1: drain: expected a time such as 20ms, 10s or 5m, got "10"`,
		"drain: -1s":                           `a.yaml:1: drain: expected a time`,
		"limits: 3":                            `a.yaml:1: limits: expected lines of the form "key: value"`,
		"limits:\n  boddy: 1MB":                `a.yaml:2: there is no key "limits.boddy"; did you mean body?`,
		"limits:\n  body: 1.5B":                `a.yaml:2: limits.body: expected a size such as 64MB or 1GiB, got "1.5B"`,
		"limits:\n  body: lots":                `a.yaml:2: limits.body: expected a size`,
		"limits:\n  sessions: 0":               `a.yaml:2: limits.sessions: expected a whole number from 1`,
		"limits:\n  sessions:":                 `limits.sessions: expected a whole number`,
		"models: a.onnx":                       `a.yaml:1: models: expected a list`,
		"models:\n  - a.onnx":                  `a.yaml:2: models: expected lines of the form "key: value" after "- "`,
		"models:\n  - name: a":                 `a.yaml:2: models[0]: the key path is missing`,
		"models:\n  - path: a\n    rows: many": `a.yaml:3: models[0].rows: expected a whole number`,
		"models:\n  - path: a\n  - path: b\n    batch: no":             `a.yaml:4: models[1].batch: expected true or false, got "no"`,
		"models:\n  - path: a\n    name: a/b":                          `a.yaml:3: models[0].name: expected a name of 1 to 256 characters`,
		"models:\n  - path: a\n    share: NaN":                         `a.yaml:3: models[0].share: expected a number from 0.001`,
		"models:\n  - path: a\n    states: [h]":                        `a.yaml:3: models[0].states: expected names`,
		"models:\n  - path: a\n    states: {h: [b]}":                   `a.yaml:3: models[0].states.h: expected a name`,
		"models:\n  - path: a\n    labels: {p: gone.txt}":              `a.yaml:3: models[0].labels.p: expected a list of labels or a file with one in each line: gone.txt`,
		"models:\n  - path: a\n    labels: {p: []}":                    `a.yaml:3: models[0].labels.p: expected a text or a list of texts, got an empty list`,
		"pipelines:\n  - name: p":                                      `a.yaml:2: pipelines[0]: the key stages is missing`,
		"pipelines:\n  - name: p\n    stages:\n      - inputs: {a: b}": `a.yaml:4: pipelines[0].stages[0]: the key model is missing`,
		"models:\n  - {}":                                              `a.yaml:2: models[0]: the key path is missing`,
		"models: &m [1]":                                               `a.yaml:1: models: expected a list`,
		"http: 'a":                                                     `a.yaml:1`,
		"- a":                                                          `a.yaml:1`,
	} {
		c, err := parseConfig("a.yaml", text, &seal{}, anyCPU)
		var fault *model.FileError
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
		if c != nil {
			t.Errorf("%q: a part of the file was used", text)
		}
	}
	if _, err := ReadConfig(filepath.Join(t.TempDir(), "gone.yaml"), nil); !errors.As(err, new(*model.FileError)) || !strings.Contains(err.Error(), "gone.yaml: expected the configuration of a server: no such file") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestSizesAndAddresses(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "1000B": 1000, "64MB": 64e6, "64 MB": 64e6, "64MiB": 64 << 20, "1.5kB": 1500, "2GiB": 2 << 30, "1KB": 1000, "1TB": 1e12} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "MB", "0", "-1MB", "1e300", "NaN", "0x10", "1mb", "1 000", "1.0001B", "Inf"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
	for text, ok := range map[string]bool{"127.0.0.1:8080": true, ":9000": true, "[::1]:80": true, "localhost:0": true, "off": true, "": false, "8080": false, "a:b": false, "a:70000": false, "a:-1": false, "::1:80": false} {
		if err := CheckAddress(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func anyCPU(name string) error {
	if name != "cpu" {
		return fmt.Errorf("expected cpu, got %q", name)
	}
	return nil
}
