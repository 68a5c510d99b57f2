// Package deploy has no code: its tests hold the manifests beside it to the types and the code
// of Kubernetes, JobSet and Kubeflow Trainer, and train with them.
package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	trainer "github.com/kubeflow/trainer/v2/pkg/apis/trainer/v1alpha1"
	"github.com/kubeflow/trainer/v2/pkg/constants"
	"github.com/kubeflow/trainer/v2/pkg/runtime/core"
	trainertesting "github.com/kubeflow/trainer/v2/pkg/util/testing"
	trainerwebhooks "github.com/kubeflow/trainer/v2/pkg/webhooks"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	jobset "sigs.k8s.io/jobset/api/jobset/v1alpha2"
	jobsetwebhooks "sigs.k8s.io/jobset/pkg/webhooks"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/carousel-ml/carousel/dist"
)

// trees returns the documents of a manifest as trees of JSON.
func trees(t *testing.T, file string) []map[string]any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var trees []map[string]any
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var tree map[string]any
		if err := yaml.UnmarshalStrict(document, &tree); err != nil { // keys that occur twice
			t.Fatalf("%s: %v", file, err)
		}
		trees = append(trees, tree)
	}
	return trees
}

// decode turns a tree into the type of its kind, as an API server does that refuses unknown
// fields: their names are compared with their case.
func decode(tree map[string]any) (client.Object, error) {
	kind := fmt.Sprint(tree["apiVersion"], " ", tree["kind"])
	var object client.Object
	switch kind { // of another one, or without it, nothing is known
	case "v1 Service":
		object = &corev1.Service{}
	case "v1 PersistentVolumeClaim":
		object = &corev1.PersistentVolumeClaim{}
	case "batch/v1 Job":
		object = &batchv1.Job{}
	case trainer.GroupVersion.String() + " " + trainer.TrainingRuntimeKind:
		object = &trainer.TrainingRuntime{}
	case trainer.GroupVersion.String() + " " + trainer.TrainJobKind:
		object = &trainer.TrainJob{}
	default:
		return nil, fmt.Errorf("unknown apiVersion and kind in %v", tree)
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return nil, err
	}
	unknown, err := kjson.UnmarshalStrict(text, object)
	if err != nil || len(unknown) > 0 {
		return nil, fmt.Errorf("%s: %v %v", kind, err, unknown)
	}
	return object, nil
}

// withoutJAX takes the jax policy out of a runtime: Kubeflow Trainer has it since 2.2, and the
// types here are of 2.1. The torch policy takes its place, which makes the same pods with other
// variables.
func withoutJAX(t *testing.T, tree map[string]any) {
	t.Helper()
	policy := tree["spec"].(map[string]any)["mlPolicy"].(map[string]any)
	if jax, ok := policy["jax"].(map[string]any); !ok || len(jax) > 0 {
		t.Fatalf("the policy of runtime-jax.yaml: %v", policy)
	}
	if _, err := decode(tree); err == nil || !strings.Contains(err.Error(), `[unknown field "spec.mlPolicy.jax"]`) {
		t.Fatalf("runtime-jax.yaml: expected that only jax is unknown: %v", err)
	}
	delete(policy, "jax")
	policy["torch"] = map[string]any{"numProcPerNode": 1}
}

// objects returns what a manifest declares.
func objects(t *testing.T, file string) []client.Object {
	t.Helper()
	var all []client.Object
	for _, tree := range trees(t, file) {
		if file == "runtime-jax.yaml" {
			withoutJAX(t, tree)
		}
		object, err := decode(tree)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, object)
	}
	return all
}

// free are fields whose keys the user chooses.
var free = []string{"labels", "selector", "requests", "limits"}

// visit calls do with each key of a tree that names a field, and the map that holds it.
func visit(node any, do func(in map[string]any, key string)) {
	switch node := node.(type) {
	case []any:
		for _, element := range node {
			visit(element, do)
		}
	case map[string]any:
		for key, value := range node {
			if !slices.Contains(free, key) {
				visit(value, do)
			}
		}
		for _, key := range keys(node) {
			do(node, key)
		}
	}
}

func keys(m map[string]any) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	return keys
}

// TestManifests wants manifests that decode, and each field of them, planted under another
// name, in another case or beside a field that does not exist, refused by its name.
func TestManifests(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) < 9 {
		t.Fatalf("manifests: %v, %v", files, err)
	}
	for _, file := range files {
		objects(t, file)
		for _, tree := range trees(t, file) {
			if file == "runtime-jax.yaml" {
				withoutJAX(t, tree)
			}
			planted := 0
			wrong := func(name string) {
				t.Helper()
				planted++
				if _, err := decode(tree); err == nil || !strings.Contains(err.Error(), name) {
					t.Errorf("%s: %s is taken: %v", file, name, err)
				}
			}
			visit(tree, func(in map[string]any, key string) {
				for _, name := range []string{key + "x", strings.ToUpper(key[:1]) + key[1:], strings.ToLower(key)} {
					if name == key {
						continue
					}
					in[name] = in[key]
					delete(in, key)
					wrong(name)
					in[key] = in[name]
					delete(in, name)
				}
				in["nonsense"] = 1
				wrong("nonsense")
				delete(in, "nonsense")
			})
			if planted < 20 {
				t.Errorf("%s: only %d faults were planted", file, planted)
			}
		}
	}
}

// A pod is a container of a job as Kubernetes starts it.
type pod struct {
	command []string
	env     map[string]string
	codes   map[int32]batchv1.PodFailurePolicyAction // what happens after exit codes
}

func (p *pod) getenv(name string) string { return p.env[name] }

// podsOf returns the pods of an Indexed Job in the order of their indexes.
func podsOf(t *testing.T, spec *batchv1.JobSpec) []*pod {
	t.Helper()
	if spec.CompletionMode == nil || *spec.CompletionMode != batchv1.IndexedCompletion || *spec.Completions != *spec.Parallelism {
		t.Fatalf("not all indexes run at once: %+v", spec)
	}
	container := spec.Template.Spec.Containers[0]
	if container.WorkingDir != "/data" || container.VolumeMounts[0].MountPath != "/data" || spec.Template.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != "carousel" {
		t.Errorf("container %+v does not work in /data of the claim", container)
	}
	if spec.Template.Spec.RestartPolicy != corev1.RestartPolicyNever {
		t.Errorf("restartPolicy %s: Kubernetes refuses it beside podFailurePolicy", spec.Template.Spec.RestartPolicy)
	}
	var pods []*pod
	for i := range *spec.Completions {
		p := &pod{command: slices.Concat(container.Command, container.Args), env: map[string]string{}, codes: map[int32]batchv1.PodFailurePolicyAction{}}
		for _, v := range container.Env {
			switch from := v.ValueFrom; {
			case from == nil:
				p.env[v.Name] = v.Value
			case from.FieldRef != nil && from.FieldRef.FieldPath == constants.JobCompletionIndexFieldPath:
				p.env[v.Name] = strconv.Itoa(int(i))
			case from.SecretKeyRef != nil && from.SecretKeyRef.Name == "reviews" && from.SecretKeyRef.Key == "secret":
				p.env[v.Name] = "the secret"
			default:
				t.Fatalf("%s: unknown source %+v", v.Name, from)
			}
		}
		for _, rule := range spec.PodFailurePolicy.Rules {
			if rule.OnExitCodes != nil {
				for _, code := range rule.OnExitCodes.Values {
					p.codes[code] = rule.Action
				}
			}
		}
		pods = append(pods, p)
	}
	return pods
}

// kubeflow returns what Kubeflow Trainer makes of a runtime and a TrainJob: its JobSet, and the
// hostfile of the mpi policy. All webhooks have seen them.
func kubeflow(t *testing.T, files ...string) (set *jobset.JobSet, hostfile string) {
	t.Helper()
	ctx := context.Background()
	var job *trainer.TrainJob
	builder := trainertesting.NewClientBuilder()
	for _, file := range files {
		for _, object := range objects(t, file) {
			object.SetNamespace("team")
			switch o := object.(type) {
			case *trainer.TrainJob:
				group := trainer.GroupVersion.Group // an API server's default
				o.Spec.RuntimeRef.APIGroup = &group
				job = o
			case *trainer.TrainingRuntime:
				if _, err := new(trainerwebhooks.TrainingRuntimeWebhook).ValidateCreate(ctx, o); err != nil {
					t.Fatalf("%s: %v", file, err)
				}
			}
			builder = builder.WithObjects(object)
		}
	}
	c := builder.Build()
	runtimes, err := core.New(ctx, c, trainertesting.AsIndex(builder))
	if err != nil {
		t.Fatal(err)
	}
	rt := runtimes[fmt.Sprintf("%s.%s", *job.Spec.RuntimeRef.Kind, *job.Spec.RuntimeRef.APIGroup)]
	if warnings, problems := rt.ValidateObjects(ctx, nil, job); len(warnings) > 0 || len(problems) > 0 {
		t.Fatalf("%v: %v %v", files, warnings, problems)
	}
	made, err := rt.NewObjects(ctx, job)
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range made {
		text, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		var kind struct {
			Kind string
			Data map[string]string
		}
		if err := json.Unmarshal(text, &kind); err != nil {
			t.Fatal(err)
		}
		switch kind.Kind {
		case constants.JobSetKind:
			set = &jobset.JobSet{}
			if unknown, err := kjson.UnmarshalStrict(text, set); err != nil || len(unknown) > 0 {
				t.Fatal(err, unknown)
			}
		case "ConfigMap":
			hostfile = kind.Data[constants.MPIHostfileName]
		}
	}
	for i := range set.Spec.ReplicatedJobs {
		set.Spec.ReplicatedJobs[i].GroupName = "default" // an API server's default
	}
	webhook, err := jobsetwebhooks.NewJobSetWebhook(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := webhook.Default(ctx, set); err != nil {
		t.Fatal(err)
	}
	if _, err := webhook.ValidateCreate(ctx, runtime.Object(set)); err != nil {
		t.Fatalf("%v: JobSet refuses it: %v", files, err)
	}
	// All ranks are started again, after the last of the old ones has ended, but not after exit code 2.
	want := jobset.FailurePolicyRule{Name: "misuse", Action: jobset.FailJobSet, OnJobFailureReasons: []string{batchv1.JobReasonPodFailurePolicy}}
	if p := set.Spec.FailurePolicy; p.MaxRestarts < 1 || p.RestartStrategy != jobset.BlockingRecreate || len(p.Rules) != 1 || fmt.Sprint(p.Rules[0]) != fmt.Sprint(want) {
		t.Errorf("%v: failure policy %+v", files, p)
	}
	return set, hostfile
}

// jaxVariables replaces the torch policy's variables by those that the jax policy of Kubeflow
// Trainer 2.3 sets (pkg/runtime/framework/plugins/jax).
func jaxVariables(p *pod) {
	p.env["JAX_NUM_PROCESSES"] = p.env[constants.TorchEnvNumNodes]
	p.env["JAX_PROCESS_ID"] = p.env[constants.TorchEnvNodeRank]
	p.env["JAX_COORDINATOR_ADDRESS"] = p.env[constants.TorchEnvMasterAddr] + ":6666"
	for name := range constants.TorchRunReservedEnvNames {
		delete(p.env, name)
	}
}

// torchPods are the pods of a TrainJob under the torch or the jax policy.
func torchPods(t *testing.T, runtime, job string) []*pod {
	t.Helper()
	set, _ := kubeflow(t, runtime, job)
	pods := podsOf(t, &set.Spec.ReplicatedJobs[0].Template.Spec)
	if runtime == "runtime-jax.yaml" {
		for _, p := range pods {
			jaxVariables(p)
		}
	}
	return pods
}

// jobPods are the pods of job.yaml, whose Service has to give rank 0 the name in the variables.
func jobPods(t *testing.T) []*pod {
	t.Helper()
	all := objects(t, "job.yaml")
	service, job := all[0].(*corev1.Service), all[1].(*batchv1.Job)
	if service.Spec.ClusterIP != corev1.ClusterIPNone || !service.Spec.PublishNotReadyAddresses || service.Spec.Selector[batchv1.JobNameLabel] != job.Name {
		t.Errorf("service %+v does not name the pods of %s", service.Spec, job.Name)
	}
	pods := podsOf(t, &job.Spec)
	if want, got := job.Name+"-0."+job.Spec.Template.Spec.Subdomain+":29400", pods[0].env["CAROUSEL_ADDRESS"]; job.Spec.Template.Spec.Subdomain != service.Name || got != want {
		t.Errorf("address %s, want %s", got, want)
	}
	return pods
}

// TestPlaces wants dist.Find to see four ranks in the variables that pods get.
func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		name, address, launcher string
		pods                    []*pod
	}{
		{"torch.yaml", "reviews-node-0-0.reviews:29500", "Kubeflow's torch policy", torchPods(t, "runtime-torch.yaml", "torch.yaml")},
		{"jax.yaml", "reviews-node-0-0.reviews:6666", "Kubeflow's jax policy", torchPods(t, "runtime-jax.yaml", "jax.yaml")},
		{"job.yaml", "reviews-0.reviews:29400", "carousel launch", jobPods(t)},
	} {
		if len(c.pods) != 4 {
			t.Fatalf("%s: %d pods", c.name, len(c.pods))
		}
		for i, p := range c.pods {
			place, err := dist.Find(p.getenv)
			if err != nil || place == nil || place.Rank != i || place.Size != 4 || place.Address != c.address || string(place.Secret) != "the secret" || place.Launcher != c.launcher || place.MPI {
				t.Errorf("%s: pod %d is at %+v, %v", c.name, i, place, err)
			}
		}
	}
	pods := torchPods(t, "runtime-torch.yaml", "torch-launch.yaml")
	if len(pods) != 2 {
		t.Fatalf("torch-launch.yaml: %d pods", len(pods))
	}
	for i, p := range pods {
		if place, err := dist.Find(p.getenv); err == nil || !strings.Contains(err.Error(), "carousel launch") {
			t.Errorf("torch-launch.yaml: without launch pod %d is at %+v, %v", i, place, err)
		}
		node, err := dist.FindNode(p.getenv)
		if err != nil || node == nil || node.Rank != i || node.Size != 2 || node.Processes != 2 || node.Address != "reviews-node-0-0.reviews:29500" || string(node.Secret) != "the secret" {
			t.Errorf("torch-launch.yaml: node %d is %+v, %v", i, node, err)
		}
	}
}

// mpiPods are the launcher of mpi.yaml, the nodes, and its hostfile.
func mpiPods(t *testing.T) (launcher *pod, nodes int32, hostfile string) {
	t.Helper()
	set, hostfile := kubeflow(t, "runtime-mpi.yaml", "mpi.yaml")
	for i := range set.Spec.ReplicatedJobs {
		job := &set.Spec.ReplicatedJobs[i]
		container := job.Template.Spec.Template.Spec.Containers[0]
		if !slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/home/mpiuser/.ssh" }) || container.Resources.Limits.Cpu().Value() != 16 {
			t.Errorf("%s: %+v", job.Name, container)
		}
		switch job.Name {
		case constants.Launcher:
			launcher = podsOf(t, &job.Template.Spec)[0]
			if job.DependsOn[0] != (jobset.DependsOn{Name: constants.Node, Status: jobset.DependencyReady}) {
				t.Errorf("the launcher waits for %+v", job.DependsOn)
			}
		case constants.Node:
			if nodes = *job.Template.Spec.Completions; len(container.Command) > 0 {
				t.Errorf("a node runs %q, not the image's sshd", container.Command)
			}
		}
	}
	return launcher, nodes, hostfile
}

// TestMPIPolicy wants the launcher to train beside the node, with the hostfile of both, by
// Open MPI's older and newer name.
func TestMPIPolicy(t *testing.T) {
	launcher, nodes, hostfile := mpiPods(t)
	if want := "reviews-launcher-0-0.reviews slots=2\nreviews-node-0-0.reviews slots=2\n"; nodes != 1 || len(strings.Split(hostfile, "\n")) != 3 || !strings.Contains(want, strings.Split(hostfile, "\n")[0]) || !strings.Contains(want, strings.Split(hostfile, "\n")[1]) {
		t.Errorf("%d nodes beside the launcher, hostfile %q, want the lines of %q", nodes, hostfile, want)
	}
	file := filepath.Join(constants.MPIHostfileDir, constants.MPIHostfileName)
	for _, name := range []string{constants.OpenMPIEnvHostFileLocation, "PRTE_MCA_prte_default_hostfile"} {
		if launcher.env[name] != file {
			t.Errorf("%s is %q", name, launcher.env[name])
		}
	}
	if place, err := dist.Find(launcher.getenv); place != nil || err != nil {
		t.Errorf("mpirun itself is at %+v, %v", place, err)
	}
}
