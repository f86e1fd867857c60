"""A second, minimal system, of which the package knows nothing: a density on summed planes, in two passes.

No distance, no probe, no proposal, no loss but the critic's. `test_second_method.py` takes it through.
"""

from dataclasses import replace

import torch
from torch import nn
from torch.nn.functional import softplus

from wysiwyg.camera import Camera, camera_rays, orbit
from wysiwyg.config import courses
from wysiwyg.core import Answer, rng
from wysiwyg.discriminator import Discriminator, enlarge, match_blur
from wysiwyg.method import Fake, stage_at
from wysiwyg.samplers import two_pass
from wysiwyg.sdf import sdf_normals
from wysiwyg.stylegan import Mapping
from wysiwyg.triplane import Triplane, sample_planes
from wysiwyg.volrend import integrate, march, uniform_samples


class DensityGenerator(nn.Module):
    "z and a camera -> planes -> density and colour -> a picture."

    def __init__(self, run):
        super().__init__()
        self.run = run
        self.view = run.heads.radius, run.heads.focal
        b = run.backbone
        self.mapping = Mapping(b.z_dim, b.label_dim, b.w_dim, b.mapping_layers)
        self.triplane = Triplane(b)
        self.layers = nn.Sequential(nn.Linear(b.plane_channels, 16), nn.Softplus(), nn.Linear(16, 4))

    def groups(self):
        return [dict(name='all', params=list(self.parameters()), lr=self.run.train.g_lr)]

    def orbit(self, yaw, pitch):
        return orbit(yaw, pitch, *self.view)

    def map(self, z, condition, trunc=1.0):
        label = condition.label if isinstance(condition, Camera) else condition
        return self.mapping(z, label, trunc)

    def synthesize(self, w):
        return self.triplane(w)

    def at(self, planes, x):
        "Density [B, M] and colour [B, M, 3] at x [B, M, 3]; thin at the start, and a ball."
        out = self.layers(sample_planes(planes, x, self.run.render.box, 'sum'))
        ball = 4 * (0.25 - x.norm(dim=-1))
        return 20 * softplus(out[..., 0] + 10 * ball), out[..., 1:].sigmoid()

    def field_at(self, planes):
        def field(points, dirs):
            sigma, rgb = self.at(planes, points.flatten(1, 2))
            sizes = points.shape[1:3]
            return Answer(rgb.unflatten(1, sizes), sigma=sigma.unflatten(1, sizes))

        return field

    def see(self, planes, rays, m, normals):
        c = self.run.render
        out = integrate(m, c.far, c.background)
        if not normals:
            return out
        x = rays.at(out.surface_depth(c.far)[..., None])[:, :, 0]
        n = sdf_normals(lambda x: -self.at(planes, x)[0], x)
        return replace(out, normal=n * (out.opacity > 0.5)[..., None])

    def render(self, planes, camera, resolution=None, normals=False, key=0):
        c, rays = self.run.render, camera_rays(camera, resolution or self.run.resolution)
        n = c.coarse + c.fine
        u = torch.rand(*rays.dirs.shape[:2], n, generator=rng(key, 'two passes'))
        m = two_pass(self.field_at(planes), rays, c.near, c.far, c.coarse, c.fine, u)
        return self.see(planes, rays, m, normals)

    def dense_march(self, planes, rays, samples):
        c = self.run.render
        return march(self.field_at(planes), rays, uniform_samples(rays, c.near, c.far, samples))

    def dense(self, planes, camera, resolution=None, samples=64, normals=False):
        rays = camera_rays(camera, resolution or self.run.resolution)
        return self.see(planes, rays, self.dense_march(planes, rays, samples), normals)

    def forward(self, z, camera, trunc=1.0, normals=False, key=0):
        return self.render(self.synthesize(self.map(z, camera, trunc)), camera, None, normals, key)


class DensityMethod:
    name = 'density'
    label_kinds = ('camera',)

    def generator(self, run, start=True):
        return DensityGenerator(run)

    def critics(self, run):
        return {'image': Discriminator(run.discriminator, run.resolution, run.backbone.label_dim)}

    def stage(self, run, images):
        return stage_at(run.schedule, images)

    def courses(self, run):
        return courses(run.schedule)

    def rates(self, run, stage):
        return {'all': run.train.g_lr * stage.g_lr}

    def real(self, run, images, stage):
        return {'image': match_blur(images, stage.resolution)}

    def fake(self, g, batch, stage):
        camera = Camera.from_label(batch.label)
        planes = g.synthesize(g.map(batch.z, Camera.from_label(batch.condition)))
        out = g.render(planes, camera, stage.resolution, key=batch.keys[0])
        image = enlarge(2 * out.image() - 1, g.run.resolution)
        return Fake({'image': image}, batch.label, {}, {'geometry/opacity': out.opacity.mean()})


DENSITY = DensityMethod()


class ClassMethod(DensityMethod):
    "The same from pictures of which a class is known, or nothing; cameras are drawn from all around."

    name = 'class'
    label_kinds = ('class', 'none')

    def fake(self, g, batch, stage):
        yaw = torch.pi * torch.randn(len(batch.z), generator=batch.random('yaw'))
        camera = g.orbit(yaw, torch.zeros(len(batch.z)))
        planes = g.synthesize(g.map(batch.z, batch.condition if batch.condition.shape[1] else None))
        out = g.render(planes, camera, stage.resolution, key=batch.keys[0])
        return Fake({'image': enlarge(2 * out.image() - 1, g.run.resolution)}, batch.label, {}, {})
