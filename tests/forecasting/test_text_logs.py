"""Text logs in the formats of public trainers."""

import pytest

from ratecraft import cosine
from ratecraft.errors import LogError
from ratecraft.forecasting import read_logs

STEPS = list(range(10, 210, 10))
LOSSES = [3 - k / 200 for k in STEPS]
SCHEDULE = 0.1 * cosine(1, 0)
LRS = SCHEDULE.resolve(total_steps=200).values(STEPS).round(6).tolist()


def write(path, template, **others):
    """Write a line, or some, for each step: with {k} the step, {x} the loss, {u} the lr."""
    rows = zip(STEPS, LOSSES, LRS, strict=True)
    path.write_text("".join(template.format(k=k, x=x, u=u, **others) + "\n" for k, x, u in rows))
    return path


@pytest.mark.parametrize(
    ("template", "columns"),
    [
        (  # nanoGPT
            "step {k}: train loss 9.1234, val loss {x:.4f}\nsaving checkpoint to out\n"
            "iter {k}: loss 8.2709, time 102.08ms, mfu -100.00%",
            {"step": "step", "loss": "val loss"},
        ),
        (  # modded-nanogpt
            "step:{k}/5100 val_loss:{x:.4f} train_time:487ms step_avg:nanms\n"
            "step:{k}/5100 train_time:488ms step_avg:145.01ms",
            {"step": "step", "loss": "val_loss"},
        ),
        (  # main.log of llm.c
            "s:{k} tel:{x:.4f}\ns:{k} trl:8.0960 lr:{u:.6f} norm:2.02",
            {"step": "s", "loss": "tel", "lr": "lr"},
        ),
        (  # output of llm.c
            "step {k:4}/19560 | loss 7.577051 (+1.23z)| norm 1.1461 (-0.20z)| lr {u:.2e} | "
            "72.01 ms | 38.1% bf16 MFU | 7281 tok/s\nval loss {x:.6f}",
            {"step": "step", "loss": "val loss", "lr": "lr"},
        ),
        (  # Megatron-LM
            " [2025-09-07 23:58:47] iteration {k:8}/  500000 | consumed samples:        19488 | "
            "elapsed time per iteration (ms): 438.3 | learning rate: {u:.6E} | global batch size: "
            "   32 | lm loss: {x:.6E} | loss scale: 1.0 | number of skipped iterations:   0 |",
            {"step": "iteration", "loss": "lm loss", "lr": "learning rate"},
        ),
        (  # torchtitan
            "[rank0]:[titan] 2025-10-30 14:32:58,897 - root - INFO - step: {k:2}  loss: {x:7.4f}  "
            "grad_norm:  3.6855  memory:  2.47GiB(3.12%)  tps: 3,502  tflops: 1.90  mfu: 0.19%",
            {"step": "step", "loss": "loss"},
        ),
        (  # MaxText
            "completed step: {k}, seconds: 3.400, TFLOP/s/device: 2.1, loss: {x:.3f}",
            {"step": "step", "loss": "loss"},
        ),
        (  # OLMo
            "2025-12-27 22:20:24.415\thost-03:0\tolmo.train:990\tINFO\t[step={k}/10000,epoch=0]\n"
            "    optim/total_grad_norm=0.9081\n    train/CrossEntropyLoss={x:.3f}\n"
            "    throughput/total_tokens=52,428,800\nsaving checkpoint\nloss 7",
            {"step": "step", "loss": "train/crossentropyloss"},
        ),
        (  # fairseq
            '2020-04-22 07:42:21 | INFO | train | {{"epoch": 2, "train_loss": "{x}", "train_ppl": '
            '"1.03", "train_num_updates": "{k}", "train_lr": "{u}", "train_wall": "64"}}',
            {"step": "train_num_updates", "loss": "train_loss", "lr": "train_lr"},
        ),
        (  # a Python dict
            "{{'step': {k}, 'loss': {x}, 'learning_rate': {u}, 'note': None}}",
            {"step": "step", "loss": "loss", "lr": "learning_rate"},
        ),
        (
            "split=train step={k} best=True note None val_loss={x} lr null aux=[0.1] lr={u}",
            {"step": "step", "loss": "val_loss", "lr": "lr"},
        ),
        (
            "Step [{k}/1,000]  Val Loss = {x}  LR = {u}",
            {"step": "step", "loss": "val loss", "lr": "lr"},
        ),
    ],
)
@pytest.mark.parametrize("name", ["train.log", "train.txt", "nohup.out", "log"])
def test_lines_of_public_trainers(tmp_path, template, columns, name) -> None:
    path = write(tmp_path / name, template)
    schedule = None if "lr" in columns else SCHEDULE
    (log,) = read_logs(path, schedule=schedule)
    assert list(log.steps) == STEPS
    assert list(log.losses) == pytest.approx(LOSSES, abs=1e-3)
    assert log.columns == columns
    assert log.every_lr[-1] == pytest.approx(LRS[-2], abs=1e-3)


def test_lines_without_a_step_are_text(tmp_path) -> None:
    code = (
        "warmup_steps: int = 300\nNamespace(steps=5, lr=0.3, loss=0.1)\n"
        "# wait on step 3, then compute update of 3\nimport torch\nval_loss = 0\n"
        'print(f"step:{step}/{total} val_loss:{val_loss:.4f}")\nvalidate every step, loss 7\n'
    )
    lines = "".join(
        f"[INFO] step {k}: loss {x}\ntokens per step 512, time per step 0.5\nbest 3.0\n"
        for k, x in zip(STEPS, LOSSES, strict=True)
    )
    path = tmp_path / "run.txt"
    path.write_text(code + lines + "peak memory: 5.2 GiB\n")
    (log,) = read_logs(path, schedule=SCHEDULE)
    assert list(log.steps) == STEPS
    assert list(log.losses) == LOSSES


def test_numbers_with_thousands_separators_and_exponents(tmp_path) -> None:
    path = tmp_path / "run.log"
    path.write_text("".join(f"step {1000 * k:,}, loss {4 / k:.3E}, lr 1e-3\n" for k in STEPS))
    (log,) = read_logs(path)
    assert list(log.steps) == [1000 * k for k in STEPS]
    assert log.losses[1] == 0.2
    assert log.peak_lr == 1e-3


def test_steps_that_repeat_are_refused(tmp_path) -> None:
    path = write(tmp_path / "run.log", "step {k} loss {x} lr {u}")
    path.write_text(path.read_text() + "step 150 loss 2.1 lr 0.01\n")  # resumed at step 140
    with pytest.raises(LogError, match="step 150 of row 21 comes after 200; expected one row for"):
        read_logs(path)


def test_loss_that_is_not_a_number_is_refused(tmp_path) -> None:
    path = write(tmp_path / "run.log", "step {k} loss {x} lr {u}")
    path.write_text(path.read_text() + "step 210 loss nan lr 0.01\n")
    with pytest.raises(LogError, match="the loss of row 21 is nan"):
        read_logs(path)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{'loss': {x}, 'learning_rate': {u}, 'epoch': 0.1}}", "read the trainer_state.json of"),
        ("Epoch {k}/200\n9/9 [===] - 2s 5ms/step - loss: 1 - val_loss: {x}", "log the step too"),
        ("{k}", "no line has a step and another number with a name; expected CSV, JSON, "),
        ("step {k} took 5.2s", "no line has a step and another number with a name"),
        ("step {k} accuracy {x}", "no column eval_loss or .*; the columns are accuracy; pass"),
    ],
)
def test_text_without_steps_or_losses_is_refused(tmp_path, template, words) -> None:
    with pytest.raises(LogError, match=words):
        read_logs(write(tmp_path / "run.log", template))


def test_columns_of_text_that_looks_like_json_or_csv(tmp_path) -> None:
    path = write(tmp_path / "run.log", '{{"step": {k}, "loss": {x}, "lr": {u}}}')
    path.write_text(path.read_text() + '{"step": 210, "lo')  # the run was killed
    assert list(read_logs(path)[0].losses) == LOSSES
    csv = write(tmp_path / "run.txt", "{k},{x},{u}")
    csv.write_text("iter,loss,lr\n" + csv.read_text())
    assert list(read_logs(csv)[0].losses) == LOSSES
