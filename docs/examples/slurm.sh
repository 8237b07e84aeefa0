#!/bin/bash
#SBATCH --nodes=4 --ntasks-per-node=1 --cpus-per-task=16 --gpus-per-node=4 --time=24:00:00
#SBATCH --signal=B:TERM@60 --requeue --open-mode=append

export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK        # steps do not inherit it since Slurm 22.05
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$HOME/.ray/auth_token      # readable by you alone; ray get-auth-token --generate writes it
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$head:6379

srun --nodes=1 --ntasks=1 -w "$head" ray start --head --port=6379 --num-cpus=$SLURM_CPUS_PER_TASK --block &
sleep 20
srun --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --exclude="$head" \
  ray start --address="$address" --num-cpus=$SLURM_CPUS_PER_TASK --block &
sleep 20

harness compare my.yaml --executor ray --ray-address "$address" --store /shared/store --out /shared/runs/my \
  --set run.max_hours=23.8 &
run=$!
trap 'kill -TERM $run; wait $run; scontrol requeue $SLURM_JOB_ID; exit 0' TERM
wait $run || { [ $? -eq 75 ] && scontrol requeue "$SLURM_JOB_ID"; }  # 75: its hours are over
