import pytest
import torch

from seg_pruning.callbacks.distillation_losses import attention_loss, logit_loss


def logits(channels: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(2, channels, 3, 4, generator=generator, dtype=torch.float32)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_several_classes(temperature):
    """Worked out by hand, in float64, place by place."""
    student, teacher = logits(5, 0), logits(5, 1)
    expected = 0.0
    for n in range(2):
        for y in range(3):
            for x in range(4):
                p = torch.exp(teacher[n, :, y, x].double() / temperature)
                q = torch.exp(student[n, :, y, x].double() / temperature)
                p, q = p / p.sum(), q / q.sum()
                expected += float((p * (p / q).log()).sum()) / 24
    got = logit_loss(student, teacher, temperature=temperature)
    assert got.item() == pytest.approx(expected * temperature**2, rel=1e-4)


@pytest.mark.parametrize(("channels", "activation"), [(1, "auto"), (3, "sigmoid")])
def test_one_class_or_several_at_once(channels, activation):
    student, teacher = logits(channels, 2), logits(channels, 3)
    p, q = (teacher.double() / 2).sigmoid(), (student.double() / 2).sigmoid()
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean() * 4
    got = logit_loss(student, teacher, temperature=2.0, activation=activation)
    assert got.item() == pytest.approx(expected.item(), rel=1e-4)


def test_gradients_do_not_shrink_with_the_temperature():
    teacher = logits(4, 1)
    sizes = []
    for temperature in (50.0, 100.0):
        student = logits(4, 0).requires_grad_()
        logit_loss(student, teacher, temperature=temperature).backward()
        sizes.append(student.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_attention_does_not_depend_on_channels_or_scale():
    wide = logits(8, 5)
    assert attention_loss(wide[:, torch.randperm(8)] * 7, wide).item() == pytest.approx(0, abs=1e-10)
    narrow = logits(3, 6)
    one, other = ((f.double() ** 2).mean(1).reshape(2, -1) for f in (narrow, wide))
    one, other = one / (one**2).sum(1, keepdim=True).sqrt(), other / (other**2).sum(1, keepdim=True).sqrt()
    assert attention_loss(narrow, wide).item() == pytest.approx(((one - other) ** 2).mean().item(), rel=1e-5)
