#!/usr/bin/env bash
# The demo on videos. Makes H.264 files of small images that move, trains a VideoMAE teacher on them, then the same
# smaller student by VideoMAE and by AMD, and fine-tunes each with the labels (the motions) of 1 % of the videos.
# Prints their accuracy. Under 15 minutes on two cores after installing. Run again, it goes on where it stopped.
set -euo pipefail
. "$(dirname "$0")/setup_env.sh" requirements-video.txt
out=${1:-runs/demo_video}
videos=(--config.data.source=manifest "--config.data.path=$out/videos")
train() { .venv/bin/python -m amd_jax.main "--config=configs/demo_video.py:$1" "--workdir=$out/$2" "${videos[@]}" "${@:3}"; }

echo "== 1/6 the videos: 12,000 H.264 files and their lists"
.venv/bin/python -m amd_jax.data.moving --out="$out/videos"
for split in train eval; do
    list=$([ $split = train ] && echo train || echo val)
    [ -e "$out/videos/$list.csv" ] ||
        .venv/bin/python -m amd_jax.data.manifest build --root="$out/videos" --split=$split --output="$out/videos/$list.csv"
done
echo "== 2/6 the teacher: VideoMAE"
train teacher teacher
echo "== 3/6 the student without a teacher: VideoMAE"
train videomae videomae
echo "== 4/6 the student with the teacher: AMD"
train amd amd "--config.teacher.weights=$out/teacher"
echo "== 5/6 fine-tuning with 100 labels; and with all 10,000, but one frame of each video"
train frame frame --config.optim.layer_decay=1.0
train finetune scratch --config.optim.layer_decay=1.0
for run in videomae amd; do
    train finetune "$run-tuned" "--config.student.weights=$out/$run"
done
train finetune teacher-tuned "--config.student.weights=$out/teacher" --config.student.width=96 --config.student.depth=6
echo "== 6/6 linear probe and kNN of the frozen encoders, fitted on 5,000 videos"
.venv/bin/python -m amd_jax.probe --untrained --examples=5000 "$out/videomae" "$out/amd" "$out/teacher"
echo
echo "fine-tuned        top-1 %"
for run in frame scratch videomae-tuned amd-tuned teacher-tuned; do
    printf '%-18s%7.1f\n' "$run" "$(sed -n 's/.*"eval_top1": \([0-9.]*\).*/\1/p' "$out/$run/metrics.jsonl" | tail -1)"
done
