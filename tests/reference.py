"""The paper's Algorithm 2 as a loop in float64 NumPy, with the options of the ports."""

import numpy as np


def adamax_trajectory(
    params: np.ndarray,
    gradients: np.ndarray,
    *,
    lr: float = 2e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    maximize: bool = False,
    eps_outside: float = 0.0,
    decoupled: bool = False,
) -> np.ndarray:
    """Return the parameters after each step.

    Args:
      params: Initial parameters, any shape.
      gradients: One gradient a step; shape (steps, *params.shape).
      lr: The step size, alpha.
      b1: Decay rate of the mean.
      b2: Decay rate of the infinity norm.
      eps: Added inside the maximum.
      weight_decay: Coefficient of the L2 penalty.
      maximize: Whether to ascend.
      eps_outside: Added to the norm where it divides.
      decoupled: Whether the decay passes the moments by (AdamW's way).

    Returns:
      Parameters, shape (steps, *params.shape), float64 or complex128.
    """
    theta = np.array(params, np.result_type(params, np.float64))
    m = np.zeros_like(theta)
    u = np.zeros(theta.shape)
    trajectory = []
    for t, gradient in enumerate(gradients, start=1):
        g = np.asarray(gradient, theta.dtype)
        if maximize:
            g = -g
        if not decoupled:
            g = g + weight_decay * theta
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, np.abs(g) + eps)
        # α / (1 - β1^t) · m / u; nothing where there was no gradient so far.
        step = np.divide(m, u + eps_outside, out=np.zeros_like(m), where=u > 0)
        step = lr / (1 - b1**t) * step
        if decoupled:
            step = step + lr * weight_decay * theta
        theta = theta - step
        trajectory.append(theta)
    return np.stack(trajectory)
