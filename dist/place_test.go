package dist_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/dist"
)

// lookup is a getenv of "A=1 B=2".
func lookup(vars string) func(string) string {
	m := map[string]string{}
	for field := range strings.FieldsSeq(vars) {
		name, value, _ := strings.Cut(field, "=")
		m[name] = value
	}
	return func(name string) string { return m[name] }
}

// What launchers set, as torchrun 2.15, Open MPI 5.0 and MPICH 5.0 were seen to, and
// as Slurm and Kubeflow Trainer 2.3 document it.
const (
	launchVars = "CAROUSEL_RANK=2 CAROUSEL_RANKS=4 CAROUSEL_LOCAL_RANK=2 CAROUSEL_LOCAL_RANKS=4 CAROUSEL_ADDRESS=127.0.0.1:29000 CAROUSEL_SECRET=s"
	torchVars  = "GROUP_RANK=0 GROUP_WORLD_SIZE=1 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=node0 MASTER_PORT=29611 RANK=3 ROLE_RANK=3 ROLE_WORLD_SIZE=4 TORCHELASTIC_RESTART_COUNT=0 TORCHELASTIC_RUN_ID=job7 TORCHELASTIC_USE_AGENT_STORE=True WORLD_SIZE=4"
	openVars   = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=2 OMPI_UNIVERSE_SIZE=2 PMIX_RANK=1 PMIX_NAMESPACE=prterun-x"
	hydraVars  = "PMI_RANK=1 PMI_SIZE=2 PMI_FD=9 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2"
	slurmVars  = "SLURM_JOB_ID=4711 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=5 SLURM_NTASKS=5 SLURM_PROCID=3 SLURM_LOCALID=1 SLURM_NODEID=1 SLURM_STEP_TASKS_PER_NODE=2(x2),1 SLURM_STEP_NODELIST=gpu[07-08],login"
	batchVars  = "SLURM_JOB_ID=4711 SLURM_NTASKS=5 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NODELIST=gpu[07-08],login"
	petVars    = "PET_NNODES=3 PET_NPROC_PER_NODE=1 PET_NODE_RANK=2 PET_MASTER_ADDR=job-node-0-0.job PET_MASTER_PORT=29400"
	jaxVars    = "JAX_NUM_PROCESSES=3 JAX_PROCESS_ID=1 JAX_COORDINATOR_ADDRESS=job-node-0-0.job:6666"
)

// TestFind wants the place of each launcher, the inner one where launchers are nested.
func TestFind(t *testing.T) {
	torch := dist.Place{Rank: 3, Size: 4, LocalRank: 1, LocalSize: 2, Address: "node0:29612", Launcher: "torchrun"}
	open := dist.Place{Rank: 1, Size: 2, LocalRank: 1, LocalSize: 2, Launcher: "Open MPI's mpirun", MPI: true}
	hydra := dist.Place{Rank: 1, Size: 2, LocalRank: 1, LocalSize: 2, Launcher: "MPICH's mpirun", MPI: true}
	slurm := dist.Place{Rank: 3, Size: 5, LocalRank: 1, LocalSize: 2, Address: "gpu07:", Launcher: "Slurm"}
	pet := dist.Place{Rank: 2, Size: 3, LocalSize: 1, Address: "job-node-0-0.job:29400", Launcher: "Kubeflow's torch policy"}
	launch := dist.Place{Rank: 2, Size: 4, LocalRank: 2, LocalSize: 4, Address: "127.0.0.1:29000", Launcher: "carousel launch"}
	moved := slurm
	moved.Address = "ib0:1"
	overMPI := dist.Place{Rank: 3, Size: 5, LocalRank: 1, LocalSize: 2, Launcher: "Slurm", MPI: true}
	for vars, want := range map[string]*dist.Place{
		"":                                   nil,
		"PATH=/bin HOME=/ RANK=3":            nil,
		launchVars:                           &launch,
		torchVars:                            &torch,
		openVars:                             &open,
		hydraVars:                            &hydra,
		slurmVars:                            &slurm,
		petVars:                              &pet,
		jaxVars:                              {Rank: 1, Size: 3, Address: "job-node-0-0.job:6666", Launcher: "Kubeflow's jax policy"},
		"PMI_RANK=1 PMI_SIZE=3":              {Rank: 1, Size: 3, Launcher: "a launcher of MPI", MPI: true},
		batchVars:                            nil,
		petVars + " PET_NPROC_PER_NODE=auto": &pet,
		// Without torchrun's own store, and from a launcher that only sets its variables.
		torchVars + " TORCHELASTIC_USE_AGENT_STORE=":            {Rank: 3, Size: 4, LocalRank: 1, LocalSize: 2, Address: "node0:29611", Launcher: "torchrun"},
		"RANK=1 WORLD_SIZE=2 MASTER_ADDR=fe80::1 MASTER_PORT=5": {Rank: 1, Size: 2, Address: "[fe80::1]:5", Launcher: "a launcher of PyTorch"},
		// Nested.
		slurmVars + " " + torchVars:                             &torch,
		slurmVars + " " + openVars:                              &open,
		slurmVars + " " + hydraVars:                             &hydra,
		petVars + " " + torchVars:                               &torch,
		slurmVars + " " + torchVars + " " + launchVars:          &launch,
		batchVars + " " + openVars:                              &open,
		slurmVars + " MASTER_ADDR=gpu07 WORLD_SIZE=5":           &slurm,
		slurmVars + " PMI_RANK=3 PMI_SIZE=5 PMIX_RANK=3":        &slurm,
		slurmVars + " PMIX_RANK=3 CAROUSEL_MPI=libmpi.so.12":    &overMPI,
		slurmVars + " CAROUSEL_ADDRESS=ib0:1 CAROUSEL_SECRET=s": &moved,
		// Alone.
		"CAROUSEL_ALONE=1 " + torchVars: nil,
		"CAROUSEL_ALONE=0 " + torchVars: &torch,
		"RANK=0 WORLD_SIZE=1":           nil,
		"PMI_RANK=0 PMI_SIZE=1":         nil,
		strings.NewReplacer("NUM_TASKS=5", "NUM_TASKS=1", "PROCID=3", "PROCID=0").Replace(slurmVars): nil,
		strings.NewReplacer("NNODES=3", "NNODES=1", "RANK=2", "RANK=0").Replace(petVars):             nil,
	} {
		got, err := dist.Find(lookup(vars))
		if err != nil {
			t.Errorf("%s: %v", vars, err)
			continue
		}
		if got != nil {
			if got.MPI == (len(got.Secret) > 0) {
				t.Errorf("%s: MPI %v with a secret of %d bytes", vars, got.MPI, len(got.Secret))
			}
			got.Secret = nil
			if want == &slurm && strings.HasPrefix(got.Address, "gpu07:") {
				got.Address = "gpu07:"
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", vars, got, want)
		}
	}
}

// The first host of Slurm's lists is that of rank 0.
func TestSlurmHost(t *testing.T) {
	for list, want := range map[string]string{
		"login": "login", "gpu1,gpu2": "gpu1", "gpu[7]": "gpu7", "gpu[007-010,3],a": "gpu007", "gpu[3,5-7]": "gpu3",
		"rack[2-3]n[01-04]": "rack2n01", "n[1-2]-ib.x.org,b": "n1-ib.x.org",
		"[1-2]": "1", "gpu[": "", "gpu[]": "", "gpu[a-b]": "", "gpu[1": "", ",a": "",
	} {
		p, err := dist.Find(lookup(slurmVars + " SLURM_STEP_NODELIST=" + list))
		switch {
		case want == "" && (err == nil || !strings.Contains(err.Error(), "SLURM_STEP_NODELIST")):
			t.Errorf("%q: %+v, %v", list, p, err)
		case want != "" && (err != nil || !strings.HasPrefix(p.Address, want+":")):
			t.Errorf("%q: %+v, %v", list, p, err)
		}
	}
}

// Contradictions are one line that names the variable.
func TestFindErrors(t *testing.T) {
	for vars, want := range map[string]string{
		"CAROUSEL_RANK=0":                         "CAROUSEL_RANKS: is not set",
		launchVars + " CAROUSEL_RANK=4":           "CAROUSEL_RANK: 4 is not below CAROUSEL_RANKS, 4",
		launchVars + " CAROUSEL_SECRET=":          "CAROUSEL_SECRET: is not set",
		launchVars + " CAROUSEL_ADDRESS=":         "CAROUSEL_ADDRESS: is not set",
		launchVars + " CAROUSEL_ADDRESS=here":     `CAROUSEL_ADDRESS: expected host:port of rank 0, got "here"`,
		launchVars + " CAROUSEL_LOCAL_RANKS=":     "CAROUSEL_LOCAL_RANKS: is not set",
		"CAROUSEL_ADDRESS=a:1":                    "set CAROUSEL_RANK and CAROUSEL_RANKS too",
		"CAROUSEL_ALONE=maybe":                    `CAROUSEL_ALONE: expected 1 or 0, got "maybe"`,
		torchVars + " WORLD_SIZE=":                "WORLD_SIZE: is not set",
		torchVars + " WORLD_SIZE=x":               `WORLD_SIZE: expected a number, 1 or more, got "x"`,
		torchVars + " MASTER_PORT=70000":          "MASTER_PORT: expected a number, from 1 to 65534",
		"RANK=1 MASTER_ADDR=a":                    "WORLD_SIZE: is not set",
		"WORLD_SIZE=1 MASTER_ADDR=a":              "RANK: is not set",
		"OMPI_COMM_WORLD_RANK=0":                  "OMPI_COMM_WORLD_SIZE: is not set",
		"PMI_SIZE=2":                              "PMI_RANK: is not set",
		hydraVars + " PMI_RANK=-1":                "PMI_RANK: expected a number, 0 or more",
		slurmVars + " SLURM_STEP_NODELIST=gpu[1-": "SLURM_STEP_NODELIST: expected host names",
		slurmVars + " SLURM_STEP_NODELIST=":       "SLURM_STEP_NODELIST: is not set",
		petVars + " PET_NNODES=1:4":               `PET_NNODES: expected a number, 1 or more, got "1:4"`,
		petVars + " PET_NPROC_PER_NODE=4":         "PET_NPROC_PER_NODE: 4 processes a node",
		petVars + " PET_MASTER_ADDR=":             "PET_MASTER_ADDR: is not set",
		jaxVars + " JAX_COORDINATOR_ADDRESS=a":    "JAX_COORDINATOR_ADDRESS: expected host:port",
		"JAX_PROCESS_ID=0":                        "JAX_NUM_PROCESSES: is not set",
	} {
		p, err := dist.Find(lookup(vars))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "CAROUSEL_ALONE") {
			t.Errorf("%s: got %+v, %v, want %q", vars, p, err, want)
		}
	}
}

// A secret is the same for the ranks of a job, another one for another job, and the
// user's if there is one.
func TestSecret(t *testing.T) {
	secret := func(vars string) string {
		t.Helper()
		p, err := dist.Find(lookup(vars))
		if err != nil || p == nil {
			t.Fatal(vars, p, err)
		}
		return string(p.Secret)
	}
	for _, c := range []struct{ vars, rank, job string }{
		{torchVars, " RANK=0 LOCAL_RANK=0 GROUP_RANK=1", " TORCHELASTIC_RUN_ID=job8"},
		{torchVars, " RANK=0", " TORCHELASTIC_RESTART_COUNT=1"},
		{slurmVars, " SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0", " SLURM_JOB_ID=4712"},
		{slurmVars, " SLURM_PROCID=1", " SLURM_STEP_ID=1"},
		{petVars, " PET_NODE_RANK=0", " PET_MASTER_ADDR=other"},
		{jaxVars, " JAX_PROCESS_ID=0", " JAX_COORDINATOR_ADDRESS=other:1"},
	} {
		if one := secret(c.vars); one != secret(c.vars+c.rank) || one == secret(c.vars+c.job) || len(one) < 32 {
			t.Errorf("secret of %s", c.vars)
		}
		if secret(c.vars+" CAROUSEL_SECRET=mine") != "mine" {
			t.Errorf("the user's secret is not that of %s", c.vars)
		}
	}
}

// A node's places are those that their variables give, for all ranks of the job.
func TestNode(t *testing.T) {
	for vars, want := range map[string]int{
		petVars + " PET_NPROC_PER_NODE=4":                              4,
		petVars + " PET_NPROC_PER_NODE=cpu":                            0,
		petVars + " PET_NNODES=1 PET_NODE_RANK=0 PET_NPROC_PER_NODE=2": 2,
	} {
		n, err := dist.FindNode(lookup(vars))
		if err != nil || n == nil || n.Processes != want {
			t.Fatalf("%s: %+v, %v", vars, n, err)
		}
	}
	n, _ := dist.FindNode(lookup(petVars + " PET_NPROC_PER_NODE=4"))
	for i := range 4 {
		p := n.Place(i, 4)
		if p.Rank != 8+i || p.Size != 12 || p.LocalRank != i || p.LocalSize != 4 || p.Address != "job-node-0-0.job:29400" {
			t.Errorf("%+v", p)
		}
		again, err := dist.Find(lookup(petVars + " PET_NPROC_PER_NODE=4 CAROUSEL_ALONE=1 " + strings.Join(p.Env(), " ")))
		if err != nil || !reflect.DeepEqual(again, p) || !bytes.Equal(again.Secret, n.Secret) {
			t.Errorf("%+v, %v, want %+v", again, err, p)
		}
	}
	for _, vars := range []string{"", torchVars, slurmVars, petVars + " " + torchVars, petVars + " " + launchVars} {
		if n, err := dist.FindNode(lookup(vars)); n != nil || err != nil {
			t.Errorf("%s: %+v, %v", vars, n, err)
		}
	}
	if _, err := dist.FindNode(lookup(petVars + " PET_NODE_RANK=3")); err == nil {
		t.Error("node 3 of 3 is no error")
	}
}
